"""Checks a job's parameters against its task's allow-list."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from pipemill.errors import ConfigurationError, InvalidParameter
from pipemill.parameters.refused import reason_against
from pipemill.parameters.tasks import PARAMETERS, REQUIRED
from pipemill.validation import Explanation, did_you_mean, explain, render_path, schema_of, shown

#: Held while a model is built: not every pydantic that we allow sees to it that one thread does so.
_building: Final = threading.Lock()
#: Mistakes that one error tells: a job with more of them is best read from its beginning.
TOLD_MISTAKES: Final = 5
#: Characters of one error; the first mistake is told even if it alone takes more.
TOLD_CHARACTERS: Final = 600


def validate_parameters(task: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Check a job's parameters, its queue's defaults already merged in; return a fresh copy of what was given.

    Raises
    ------
    InvalidParameter
        When one is unknown, refused, missing or out of its bounds; the text says what is taken instead.
    ConfigurationError
        When there is no such task.

    """
    model = allow_list(task)
    if parameters == {} and task not in REQUIRED:
        return {}
    try:
        accepted = model.model_validate(_as_dict(parameters)).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise InvalidParameter(_tell(task, _explain(task, error, model))) from None
    missing = [name for name in REQUIRED.get(task, ()) if name not in accepted]
    if missing:
        raise InvalidParameter(_tell(task, [_explain_missing(name, model) for name in missing]))
    return accepted


def find_parameter_mistakes(task: str, parameters: Mapping[str, Any]) -> list[Explanation]:
    """What is wrong with a queue's default parameters; what a job must have may be missing from them.

    Raises
    ------
    ConfigurationError
        When there is no such task.

    """
    model = allow_list(task)
    try:
        model.model_validate(_as_dict(parameters))
    except ValidationError as error:
        return _explain(task, error, model)
    return []


def tell_mistakes(task: str, parameters: Mapping[str, Any]) -> str:
    """What is wrong with a job's parameters, in the words of the worker, as far as it shows without its queue's.

    Empty when nothing is, and for tasks that aren't known here: a newer worker may know them.
    """
    found = find_parameter_mistakes(task, parameters) if task in PARAMETERS else []
    return _tell(task, found) if found else ""


def allow_list(task: str) -> type[BaseModel]:
    """What a job of a task may set, ready to be used by any thread.

    Raises
    ------
    ConfigurationError
        When there is no such task.

    """
    model = PARAMETERS.get(task)
    if model is None:
        close = did_you_mean(task, PARAMETERS)
        mend = f"did you mean {close}?" if close else f"use one of {', '.join(PARAMETERS)}"
        raise ConfigurationError(f"there is no task {shown(task)}: {mend}")
    if not model.__pydantic_complete__:
        with _building:
            model.model_rebuild()
    return model


def _as_dict(parameters: Any) -> Any:
    return dict(parameters) if isinstance(parameters, Mapping) else parameters


def _explain(task: str, error: ValidationError, model: type[BaseModel]) -> list[Explanation]:
    return [_refuse(task, each) for each in explain(error, schema_of(model))]


def _refuse(task: str, found: Explanation) -> Explanation:
    """Give the reason where a parameter is unknown here because no job may ever set it."""
    reason = reason_against(task, str(found.keys[-1])) if found.keys and found.problem == "unknown key" else None
    return Explanation(keys=found.keys, problem="never accepted from a job", mend=reason) if reason else found


def _explain_missing(name: str, model: type[BaseModel]) -> Explanation:
    mend = schema_of(model)["properties"][name].get("allowed", "a value")
    return Explanation(keys=(name,), problem="missing", mend=f"give {mend}")


def _tell(task: str, found: list[Explanation]) -> str:
    told = [_sentence(task, found[0])]
    for each in found[1:TOLD_MISTAKES]:
        sentence = _sentence(task, each)
        if sum(map(len, told)) + len(sentence) > TOLD_CHARACTERS:
            break
        told.append(sentence)
    more = len(found) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)


def _sentence(task: str, found: Explanation) -> str:
    if not found.keys:
        return f"the parameters: {found.problem}: {found.mend}"
    name = render_path(found.keys)
    if found.problem == "never accepted from a job":
        return f"{name} is never accepted from a job: {found.mend}"
    if found.problem == "unknown key":
        return f"{name} is not a parameter of {task}: {found.mend}"
    return f"{name}: {found.problem}: {found.mend}"
