"""The allow-lists of job parameters."""

from __future__ import annotations

import subprocess
import sys
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pipemill.errors import ConfigurationError, InvalidParameter
from pipemill.parameters import MEDIA_TASKS, PARAMETERS, REQUIRED, TASKS, find_parameter_mistakes, validate_parameters
from pipemill.parameters.refused import REFUSED, REFUSED_BY_TASK
from tests.unit.parameter_examples import ACCEPTED, BAD_TEMPLATES, REFUSALS, REFUSED_BY_RULE

#: Tasks whose labels are put into a sentence.
TEMPLATED = [task for task, model in PARAMETERS.items() if "hypothesis_template" in model.model_fields]

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


@pytest.mark.parametrize(("task", "parameters", "told"), REFUSALS + REFUSED_BY_RULE)
def test_what_is_not_allowed_is_told(task: str, parameters: Any, told: str) -> None:
    """A refused parameter is named, with what is wrong and what to do instead."""
    with pytest.raises(InvalidParameter) as caught:
        validate_parameters(task, parameters)
    assert told in str(caught.value)


@pytest.mark.parametrize("task", TEMPLATED)
@pytest.mark.parametrize("template", BAD_TEMPLATES)
def test_template_is_one_plain_place(task: str, template: str) -> None:
    """A hypothesis template that `str.format` could be abused through, or that has no place, is refused."""
    with pytest.raises(InvalidParameter, match="not exactly one"):
        validate_parameters(task, {"candidate_labels": ["a"], "hypothesis_template": template})


@pytest.mark.parametrize("task", TASKS)
def test_dangerous_names_are_refused_with_a_reason(task: str) -> None:
    """No task takes a refused name, and the error says why or what instead."""
    for name, reason in {**REFUSED, **REFUSED_BY_TASK.get(task, {})}.items():
        with pytest.raises(InvalidParameter) as caught:
            validate_parameters(task, {name: True})
        assert f"{name} is never accepted from a job: {reason}" in str(caught.value)


@pytest.mark.parametrize("task", [task for task in TASKS if PARAMETERS[task].model_fields])
def test_every_task_has_examples(task: str) -> None:
    """Each task that takes parameters has an example that passes and at least two that don't."""
    assert any(each == task for each, _ in ACCEPTED)
    assert sum(each == task for each, _, _ in REFUSALS) > 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["x" * 5_000, "top_k", "generate_kwargs", "candidate_labels", "lang", "threshold"])
def test_an_error_repeats_little(task: str, name: str) -> None:
    """However long a name or a value is, an error repeats at most 80 characters of it."""
    with pytest.raises(InvalidParameter) as caught:
        validate_parameters(task, {name: "y" * 1_000_000, "generate_kwargs": {"x" * 5_000: "y" * 1_000_000}})
    assert "x" * 80 not in str(caught.value)
    assert "y" * 80 not in str(caught.value)


@pytest.mark.parametrize("task", [task for task in TASKS if task not in REQUIRED])
def test_nothing_given_is_nothing_returned(task: str) -> None:
    """No parameters are fine wherever none is required, in any kind of mapping."""
    assert validate_parameters(task, {}) == {}
    assert validate_parameters(task, MappingProxyType({})) == {}


def test_unknown_task_is_a_mistake_of_the_configuration() -> None:
    """A task that doesn't exist is not blamed on the job."""
    with pytest.raises(ConfigurationError, match=r"there is no task \"vqa\": use one of any-to-any"):
        validate_parameters("vqa", {})
    with pytest.raises(ConfigurationError, match=r"did you mean summarization\?"):
        validate_parameters("summarisation", {})


def test_defaults_need_not_be_complete() -> None:
    """What a job must have may be missing from its queue's defaults; anything else wrong is told."""
    assert find_parameter_mistakes("zero-shot-classification", {"multi_label": True}) == []
    (found,) = find_parameter_mistakes("zero-shot-classification", {"multi_label": "x"})
    assert (found.keys, found.mend) == (("multi_label",), "give true or false")


def test_models_are_built_once_for_all_threads() -> None:
    """Threads that are the first to use a task's model, all at once, each get their answer."""
    code = """
import threading
from pipemill.parameters import TASKS, REQUIRED, validate_parameters
answers, together = [], threading.Barrier(8)
def first():
    for task in TASKS:
        together.wait()
        given = {name: ["a"] for name in REQUIRED.get(task, ())}
        answers.append(validate_parameters(task, given) == given)
threads = [threading.Thread(target=first) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
print(len(answers) == 8 * len(TASKS) and all(answers))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_many_mistakes_are_counted_not_all_told() -> None:
    """An error stays short however many parameters are wrong."""
    with pytest.raises(InvalidParameter, match=r"and 95 more$"):
        validate_parameters("echo", {f"p{number}": 1 for number in range(100)})


def test_every_task_has_its_list() -> None:
    """There is an allow-list for every task, by the alphabet, and each parameter in it says what it means."""
    assert tuple(PARAMETERS) == TASKS == (*sorted(TASKS[:-1]), "echo")
    assert set(TASKS) >= MEDIA_TASKS
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
