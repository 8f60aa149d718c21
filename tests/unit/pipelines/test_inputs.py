"""What a job's inputs may be."""

from __future__ import annotations

from typing import Any

import pytest

from pipemill.errors import InvalidInput
from pipemill_worker.pipelines.inputs import MAX_ELEMENTS, check_inputs, shorten
from tests.tasks.media import drawn

PAIR = {"text": "a", "text_pair": "b"}
MESSAGE = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("text-classification", "a"),
        ("text-classification", ["a", "b"]),
        ("text-classification", PAIR),
        ("text-classification", {"text": "a"}),
        ("text-classification", [PAIR, "a"]),
        ("fill-mask", "a"),
        ("feature-extraction", ["a"] * MAX_ELEMENTS),
        ("zero-shot-classification", "/etc/hostname is only a text here"),
        ("token-classification", "𝄞 and \n"),
        ("text-generation", ["a", "b"]),
        ("text-generation", [MESSAGE, {"role": "assistant", "content": ""}]),
    ],
)
def test_good_inputs_pass(task: str, inputs: Any) -> None:
    """Texts, lists of them, pairs and chats are taken where the task takes them."""
    check_inputs(task, inputs, chats=True)


@pytest.mark.parametrize(
    ("task", "inputs", "text"),
    [
        ("fill-mask", "", "the input is an empty string: give a text"),
        ("fill-mask", [], "the list of texts is empty"),
        ("fill-mask", ["a", ""], "element 1 of the inputs is an empty string"),
        ("fill-mask", None, "the input must be a string, not null"),
        ("fill-mask", 3, "not a number"),
        ("fill-mask", True, "not a boolean"),
        ("fill-mask", b"a", "not bytes"),
        ("fill-mask", ["a", ["b"]], "element 1 of the inputs must be a string, not a list"),
        ("fill-mask", {"text": "a"}, "not an object"),
        ("fill-mask", ("a",), "not tuple"),
        ("fill-mask", ["a"] * 1025, "1025 texts in one job, at most 1024 are taken: split them"),
        ("fill-mask", "a\ud800", "half a surrogate pair at character 1"),
        ("text-classification", {"path": "/etc/passwd"}, "it has: path"),
        ("text-classification", {}, "it has: none"),
        ("text-classification", {"text": "a", "padding": "x"}, "it has: padding, text"),
        ("text-classification", {"text_pair": "a"}, "it has: text_pair"),
        ("text-classification", {"text": ["a"]}, "'text' of the input must be a string, not a list"),
        ("text-classification", [["a", "b"]], "element 0 of the inputs must be a string, not a list"),
        ("text-generation", [[MESSAGE]], "submit one job per chat"),
        ("text-generation", [MESSAGE, "a"], "submit one job per chat"),
        ("text-generation", [{"role": "user"}], "message 0 must have the keys 'role' and 'content'"),
        ("text-generation", [{**MESSAGE, "tool_calls": []}], "it has: content, role, tool_calls"),
        (
            "text-generation",
            [{"role": "user", "content": [{"type": "image", "url": "http://localhost"}]}],
            "'content' of message 0 must be a string, not a list",
        ),
        ("text-generation", [{"role": "", "content": "a"}], "'role' of message 0 is an empty string"),
        ("text-generation", {"text": "a"}, "must be a string, not an object"),
    ],
)
def test_bad_inputs_are_refused(task: str, inputs: Any, text: str) -> None:
    """What isn't a text, a pair or a chat is refused, by its place, before a pipeline sees it."""
    with pytest.raises(InvalidInput) as caught:
        check_inputs(task, inputs, chats=True)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ("a b", "must be a list of words, not a string"),
        ([], "the list of words is empty"),
        (["a", ""], "word 1 of the input is an empty string"),
        ([["a"], "b"], "element 1 of the inputs must be a list of words"),
        ([["a"], [3]], "word 0 of element 1 of the inputs must be a string, not a number"),
        ([["a"], []], "the list of words is empty"),
        ([["a"]] * 1025, "1025 texts"),
    ],
)
def test_bad_words_are_refused(inputs: Any, text: str) -> None:
    """Texts that come as words are checked word by word."""
    with pytest.raises(InvalidInput) as caught:
        check_inputs("token-classification", inputs, words=True)
    assert text in str(caught.value)


def test_many_words_are_one_text() -> None:
    """The cap on texts in a job doesn't cap the words of a text."""
    check_inputs("token-classification", ["a"] * 2000, words=True)
    check_inputs("token-classification", [["a"] * 2000, ["b"]], words=True)


def test_no_error_repeats_a_long_input() -> None:
    """An error shows eighty characters of what it refuses, on one line, however much it was."""
    with pytest.raises(InvalidInput) as caught:
        check_inputs("text-classification", {"x" * 5000: "y" * 5000, "\n\n": ""})
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
    assert shorten("a" * 81) == "a" * 79 + "…"
    assert shorten("a" * 80) == "a" * 80


def test_prompts_with_images_come_one_a_job() -> None:
    """image-text-to-text takes a list of objects for a chat, and would blame the parameters; any-to-any takes it."""
    prompts = [{"text": "what is it?", "images": drawn(number)} for number in range(2)]
    with pytest.raises(InvalidInput, match="give each object in its own job"):
        check_inputs("image-text-to-text", prompts)
    check_inputs("any-to-any", prompts)
