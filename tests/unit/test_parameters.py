"""The allow-lists of job parameters."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pipemill.errors import ConfigurationError, InvalidParameter
from pipemill.parameters import PARAMETERS, REQUIRED, TASKS, find_parameter_mistakes, validate_parameters
from pipemill.parameters.refused import REFUSED

#: What each task takes, up to its bounds.
ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("text-classification", {"top_k": None, "function_to_apply": "none", "truncation": True, "max_length": 512}),
    ("text-classification", {"top_k": 1000}),
    ("token-classification", {"aggregation_strategy": "max", "ignore_labels": ["O"], "stride": 0}),
    ("token-classification", {"is_split_into_words": True, "delimiter": ""}),
    ("fill-mask", {"top_k": 1, "targets": "Paris", "tokenizer_kwargs": {"truncation": True, "max_length": 8}}),
    ("fill-mask", {"targets": ["Paris", "Rome"]}),
    ("feature-extraction", {"truncation": True, "tokenize_kwargs": {"max_length": 8, "add_special_tokens": False}}),
    ("zero-shot-classification", {"candidate_labels": "red, green", "multi_label": True}),
    ("zero-shot-classification", {"candidate_labels": ["red"], "hypothesis_template": "It is {}!"}),
    ("text-generation", {"max_new_tokens": 4096, "temperature": 0.1, "top_p": 1.0, "stop_sequence": "\n"}),
    ("text-generation", {"stop_sequence": ["a", "b"], "bad_words_ids": [[1, 2], [3]], "early_stopping": "never"}),
    ("text-generation", {"num_beams": 8, "num_return_sequences": 8, "length_penalty": -1.0, "early_stopping": True}),
    ("text-generation", {"num_return_sequences": 4, "do_sample": True, "handle_long_generation": "hole"}),
]

#: Task, parameters, what the error must say.
REFUSALS: list[tuple[str, Any, str]] = [
    ("text-classification", {"top_k": 0}, "top_k: 0 is less than 1: give a whole number from 1 to 1000 or null"),
    ("text-classification", {"top_k": True}, "top_k: true is not a whole number"),
    ("text-classification", {"top_k": 1.0}, "top_k: 1.0 is not a whole number"),
    ("text-classification", {"top_k": "5"}, 'top_k: "5" is not a whole number'),
    ("text-classification", {"truncation": 1}, "truncation: 1 is not true or false"),
    ("text-classification", {"function_to_apply": "Softmax"}, "did you mean softmax? Give one of sigmoid, softmax"),
    ("text-classification", {"function_to_aply": "none"}, "did you mean function_to_apply?"),
    ("text-classification", {"zzz": 1}, "zzz is not a parameter of text-classification: use one of top_k, function"),
    ("token-classification", {"ignore_labels": ["O"] * 257}, "ignore_labels: more than 256 items"),
    ("token-classification", {"ignore_labels": "O"}, 'ignore_labels: "O" is not a list'),
    ("token-classification", {"delimiter": "-" * 33}, "delimiter: more than 32 characters"),
    ("token-classification", {"stride": -1}, "stride: -1 is less than 0"),
    (
        "token-classification",
        {"stride": 4, "aggregation_strategy": "none"},
        "stride: needs the tokens aggregated: set aggregation_strategy to simple",
    ),
    ("token-classification", {"offset_mapping": []}, "offset_mapping is never accepted from a job"),
    ("fill-mask", {"targets": 5}, "targets: 5 has the wrong type: give a string of 1 to 100 characters or a list"),
    ("fill-mask", {"targets": ["Paris", 5]}, "targets[1]: 5 is not a string"),
    ("fill-mask", {"targets": []}, "targets: empty: give"),
    ("fill-mask", {"targets": ["x"] * 1001}, "targets: more than 1000 items"),
    ("fill-mask", {"tokenizer_kwargs": {"padding": True}}, "tokenizer_kwargs.padding is never accepted from a job"),
    ("fill-mask", {"tokenizer_kwargs": {"truncation": "yes"}}, 'tokenizer_kwargs.truncation: "yes" is not true'),
    ("feature-extraction", {"return_tensors": True}, "return_tensors is never accepted from a job: answers are JSON"),
    (
        "feature-extraction",
        {"truncation": True, "tokenize_kwargs": {"truncation": True}},
        "truncation: given twice: give it in tokenize_kwargs only",
    ),
    ("zero-shot-classification", {}, "candidate_labels: missing: give a list of 1 to 200 strings"),
    ("zero-shot-classification", {"multi_label": True}, "candidate_labels: missing"),
    ("zero-shot-classification", {"candidate_labels": " , "}, "candidate_labels: 0 labels: give 1 to 200"),
    ("zero-shot-classification", {"candidate_labels": ["x"] * 201}, "candidate_labels: 201 labels"),
    ("zero-shot-classification", {"candidate_labels": ["x" * 201]}, "a label is empty or too long"),
    ("zero-shot-classification", {"candidate_labels": [""]}, "a label is empty or too long"),
    ("zero-shot-classification", {"candidate_labels": ["a", "\ud800"]}, "candidate_labels[1]: half of a surrogate"),
    ("zero-shot-classification", {"candidate_labels": 3}, "candidate_labels: 3 has the wrong type"),
    ("text-generation", {"max_new_tokens": 4097}, "4097 is more than 4096: give a whole number from 1 to 4096"),
    ("text-generation", {"max_new_tokens": 10**5000}, "a number of very many digits is more than 4096"),
    ("text-generation", {"max_length": 8193}, "max_length: 8193 is more than 8192"),
    ("text-generation", {"temperature": 0}, "0 is not more than 0: give a number above 0 and at most 10, or set do_s"),
    ("text-generation", {"temperature": float("nan")}, "temperature: nan is not a finite number"),
    ("text-generation", {"top_p": float("inf")}, "top_p: inf is not a finite number"),
    ("text-generation", {"length_penalty": float("-inf")}, "length_penalty: -inf is not a finite number"),
    ("text-generation", {"repetition_penalty": 10**400}, "is not a finite number"),
    ("text-generation", {"early_stopping": "soon"}, 'give true or false or "never"'),
    ("text-generation", {"bad_words_ids": [[1, -2]]}, "bad_words_ids[0][1]: -2 is less than 0"),
    ("text-generation", {"bad_words_ids": [[]]}, "bad_words_ids[0]: empty"),
    ("text-generation", {"stop_sequence": ["a"] * 17}, "stop_sequence: more than 16 items"),
    ("text-generation", {"stop_sequence": ""}, "stop_sequence: empty"),
    ("text-generation", {"prefix": "x" * 10_001}, "prefix: more than 10000 characters"),
    ("text-generation", {"handle_long_generation": "cut"}, 'handle_long_generation: "cut" is not known here'),
    ("text-generation", {"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens: more than max_new_tokens"),
    ("text-generation", {"num_beams": 16, "num_return_sequences": 5}, "5 times num_beams 16 is more than 64"),
    ("text-generation", {"num_beams": 2, "num_return_sequences": 3}, "more than num_beams 2: give at most 2"),
    ("text-generation", {"do_sample": False, "num_return_sequences": 2}, "set do_sample to true or give 1"),
    ("text-generation", {"prefix": "\ud800"}, "is not valid Unicode: use valid Unicode"),
    ("text-generation", {"\ud800": 1}, "is not valid Unicode"),
    ("text-generation", {1: 1}, "the key is not a string"),
    ("text-generation", {"seed": 1}, "seed is never accepted from a job"),
    ("echo", {"top_k": 1}, "top_k is not a parameter of echo: remove it, none is taken here"),
    ("echo", [], "the parameters: a list is not a mapping"),
    ("echo", None, "the parameters: null is not a mapping"),
    ("echo", "", 'the parameters: "" is not a mapping'),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=120),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(st.characters()), each, max_size=4),
    max_leaves=8,
)
known_names = st.sampled_from(sorted({name for model in PARAMETERS.values() for name in model.model_fields}))


@pytest.mark.parametrize(("task", "parameters"), ACCEPTED)
def test_what_is_allowed_comes_back_as_given(task: str, parameters: dict[str, Any]) -> None:
    """Allowed parameters are returned unchanged, without any default added, and as a copy."""
    accepted = validate_parameters(task, parameters)
    assert accepted == parameters
    assert all(accepted[name] is not value for name, value in parameters.items() if isinstance(value, dict | list))


@pytest.mark.parametrize(("task", "parameters", "told"), REFUSALS)
def test_what_is_not_allowed_is_told(task: str, parameters: Any, told: str) -> None:
    """A refused parameter is named, with what is wrong and what to do instead."""
    with pytest.raises(InvalidParameter) as caught:
        validate_parameters(task, parameters)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "template", ["{:>300000000}", "{} {}", "no place", "{0}", "{label}", "{{}}", "{}{", "}{", "{!r}", "{.__class__}"]
)
def test_template_is_one_plain_place(template: str) -> None:
    """A hypothesis template that `str.format` could be abused through, or that has no place, is refused."""
    with pytest.raises(InvalidParameter, match="not exactly one"):
        validate_parameters("zero-shot-classification", {"candidate_labels": "a", "hypothesis_template": template})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_dangerous_names_are_refused_with_a_reason(task: str, name: str) -> None:
    """No task takes a refused name, and the error says why or what instead."""
    with pytest.raises(InvalidParameter) as caught:
        validate_parameters(task, {name: True})
    assert f"{name} is never accepted from a job: {REFUSED[name]}" in str(caught.value)


@pytest.mark.parametrize("task", [task for task in TASKS if task not in REQUIRED])
def test_nothing_given_is_nothing_returned(task: str) -> None:
    """No parameters are fine wherever none is required, in any kind of mapping."""
    assert validate_parameters(task, {}) == {}
    assert validate_parameters(task, MappingProxyType({})) == {}


def test_unknown_task_is_a_mistake_of_the_configuration() -> None:
    """A task that doesn't exist is not blamed on the job."""
    with pytest.raises(ConfigurationError, match="use one of text-classification"):
        validate_parameters("summarization", {})


def test_defaults_need_not_be_complete() -> None:
    """What a job must have may be missing from its queue's defaults; anything else wrong is told."""
    assert find_parameter_mistakes("zero-shot-classification", {"multi_label": True}) == []
    (found,) = find_parameter_mistakes("zero-shot-classification", {"multi_label": "x"})
    assert (found.keys, found.mend) == (("multi_label",), "give true or false")


def test_many_mistakes_are_counted_not_all_told() -> None:
    """An error stays short however many parameters are wrong."""
    with pytest.raises(InvalidParameter, match=r"and 95 more$"):
        validate_parameters("echo", {f"p{number}": 1 for number in range(100)})


def test_every_task_has_its_list() -> None:
    """There is an allow-list for every task, and each parameter in it says what it means."""
    assert set(PARAMETERS) == set(TASKS)
    assert all(field.description for model in PARAMETERS.values() for field in model.model_fields.values())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TASKS), json_values | st.dictionaries(known_names, json_values, max_size=4))
def test_any_json_is_accepted_or_refused(task: str, parameters: Any) -> None:
    """Whatever a job sends, it is returned as given or refused with a short error; nothing else comes out."""
    told = ""
    try:
        assert validate_parameters(task, parameters) == parameters
    except InvalidParameter as error:
        told = str(error)
        event("refused")
    assert len(told.encode()) < 5_000
