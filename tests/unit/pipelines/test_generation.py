"""Text generation, job by job: the stages give what the direct call gives, sampling included."""

from __future__ import annotations

import copy
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
import torch

from pipemill.errors import InputTooLong, InvalidInput
from pipemill_worker.seams import JOINS
from tests.unit.pipelines.tiny import byte_tokenizer, run_batched, runner_of, tiny_pipeline

TEMPLATE: Final = (
    "{% for message in messages %}{% if message.role == 'alien' %}{{ raise_exception('no aliens here') }}{% endif %}"
    "<{{ message.role }}>{{ message.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)

CHAT: Final = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "river?"}]


def generator(model_type: str = "gpt2", **options: Any) -> Any:
    """A pipeline over a tiny decoder that can chat."""
    return tiny_pipeline("text-generation", model_type, byte_tokenizer(chat_template=TEMPLATE), **options)


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("inputs", "parameters"),
    [
        ("river", {"max_new_tokens": 5, "do_sample": False}),
        ("river", {"max_new_tokens": 5, "do_sample": False, "return_full_text": False}),
        ("river", {"max_length": 9, "do_sample": False}),
        ("river", {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}),
        ("river", {"max_new_tokens": 40, "do_sample": False, "stop_sequence": "a"}),
        ("river", {"max_new_tokens": 5, "do_sample": False, "prefix": "over the "}),
        ("river", {"max_new_tokens": 5, "do_sample": True, "temperature": 2.0, "top_k": 20}),
        ("river", {"max_new_tokens": 5}),
        ("river", {}),
        (["river"], {"max_new_tokens": 3, "do_sample": False}),
        (["river", "a stone"], {"max_new_tokens": 3, "do_sample": False}),
        (CHAT, {"max_new_tokens": 3, "do_sample": False}),
        ([*CHAT, {"role": "assistant", "content": "It is"}], {"max_new_tokens": 3, "do_sample": False}),
        ([*CHAT, {"role": "assistant", "content": ""}], {"max_new_tokens": 3, "continue_final_message": False}),
    ],
)
def test_generated_answers_are_the_direct_calls(model_type: str, inputs: Any, parameters: dict[str, Any]) -> None:
    """Prompts, lists and chats, greedy, beams and seeded sampling: text for text as the pipeline alone."""
    pipe = generator(model_type)
    runner = runner_of("text-generation", pipe)
    torch.manual_seed(42)
    expected = pipe(copy.deepcopy(inputs), **copy.deepcopy(parameters))
    torch.manual_seed(42)
    run = run_batched(runner, [(inputs, parameters)])
    assert run.answers == [expected]
    assert json.loads(json.dumps(run.answers)) == run.answers
    assert max(run.batches) <= len(inputs)


def test_generations_join() -> None:
    """Prompts are written together, each costs its tokens; beams are searched alone."""
    runner = runner_of("text-generation", generator())
    prepared = runner.prepare(["river", "a stone"], {"max_new_tokens": 3})
    assert [(item.group, item.cost) for item in prepared.items] == [(JOINS, 5), (JOINS, 7)]
    (beams,) = runner.prepare("river", {"max_new_tokens": 3, "num_beams": 2, "do_sample": True}).items
    assert beams.group is None


def test_an_item_can_run_twice() -> None:
    """A retried item gives the same text again."""
    runner = runner_of("text-generation", generator())
    prepared = runner.prepare("river", {"max_new_tokens": 9, "do_sample": False, "stop_sequence": ["a", "b"]})
    answers = [runner.finish(prepared, runner.forward(prepared.items)) for _ in range(2)]
    assert answers[0] == answers[1]


def test_stop_strings_use_the_model_threads_tokenizer() -> None:
    """What one thread prepared with its tokenizer, the model's thread runs with its own, never with the other's."""
    pipe = generator()
    runner = runner_of("text-generation", pipe)
    used = []
    generate = pipe.model.generate

    def spy(*arguments: Any, **options: Any) -> Any:
        used.append(options["tokenizer"])
        return generate(*arguments, **options)

    pipe.model.generate = spy
    with ThreadPoolExecutor(1) as pool:
        prepared = pool.submit(
            runner.prepare, "river", {"max_new_tokens": 9, "do_sample": False, "stop_sequence": "a"}
        ).result()
        theirs = pool.submit(lambda: runner._threads.stages._pipe.tokenizer).result()
    runner.forward(prepared.items)
    assert threading.current_thread().name == "MainThread"
    assert used == [runner._threads.stages._pipe.tokenizer]
    assert used[0] is not theirs
    assert used[0] is not pipe.tokenizer


@pytest.mark.parametrize(
    ("prompt", "parameters", "text"),
    [
        ("r" * 600, {"max_new_tokens": 1}, "600 tokens.*at most 512.*shorten"),
        ("r" * 300, {}, r'may grow by 256.*at most 512.*\{"max_new_tokens": 213\}'),
        ("r" * 300, {"max_new_tokens": 214}, r"may grow by 214.*213"),
        ("r" * 300, {"max_length": 514}, r"may grow by 214.*213"),
        ("r" * 300, {"max_length": 504, "prefix": "r" * 10}, r"310 tokens and may grow by 204.*203"),
    ],
)
def test_generation_that_cannot_fit_is_refused(prompt: str, parameters: dict[str, Any], text: str) -> None:
    """GPT-2 has 512 positions: what would run past them is refused with the number that fits."""
    runner = runner_of("text-generation", generator())
    with pytest.raises(InputTooLong, match=text):
        runner.prepare(prompt, parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_new_tokens": 213},
        {"max_length": 513},
        {"max_length": 503, "prefix": "r" * 10},
        {"max_new_tokens": 300, "handle_long_generation": "hole"},
    ],
)
def test_generation_that_just_fits_is_taken(parameters: dict[str, Any]) -> None:
    """The last position is used, and a prompt that the pipeline itself cuts is measured as cut."""
    runner = runner_of("text-generation", generator())
    parameters = {**parameters, "do_sample": False}
    prepared = runner.prepare("r" * 300, parameters)
    assert runner.finish(prepared, runner.forward(prepared.items))[0]["generated_text"].startswith("r" * 300)


def test_rotary_models_have_no_such_limit() -> None:
    """A model without a table of positions takes what the direct call takes."""
    runner = runner_of("text-generation", generator("llama"))
    assert runner.describe()["max_tokens"] is None
    assert runner.prepare("r" * 600, {"max_new_tokens": 1}).items[0].cost == 600


def test_a_templates_complaint_is_the_jobs_own_error() -> None:
    """A chat that the model's template refuses is the job's fault, in the template's words."""
    runner = runner_of("text-generation", generator())
    with pytest.raises(InvalidInput, match="no aliens here"):
        runner.prepare([{"role": "alien", "content": "hello"}], {})


def test_a_model_without_a_template_takes_no_chats() -> None:
    """A chat for a model that can't chat is refused with the other way."""
    runner = runner_of("text-generation", tiny_pipeline("text-generation", "gpt2", byte_tokenizer()))
    with pytest.raises(InvalidInput, match="no chat template: give the prompt as one string"):
        runner.prepare(CHAT, {})
