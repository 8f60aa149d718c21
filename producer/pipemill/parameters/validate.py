"""Checks a job's parameters against its task's allow-list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from pipemill.errors import ConfigurationError, InvalidParameter
from pipemill.parameters.refused import REFUSED
from pipemill.parameters.tasks import PARAMETERS, REQUIRED
from pipemill.validation import Explanation, explain, render_path, schema_of, shown

#: Mistakes that one error tells: a job with more of them is best read from its beginning.
TOLD_MISTAKES: Final = 5


def validate_parameters(task: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Check a job's parameters, its queue's defaults already merged in; return a fresh copy of what was given.

    Raises
    ------
    InvalidParameter
        When one is unknown, refused, missing or out of its bounds; the text says what is taken instead.
    ConfigurationError
        When there is no such task.

    """
    model = _model(task)
    if parameters == {} and task not in REQUIRED:
        return {}
    try:
        accepted = model.model_validate(_as_dict(parameters)).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise InvalidParameter(_tell(task, _explain(error, model))) from None
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
    model = _model(task)
    try:
        model.model_validate(_as_dict(parameters))
    except ValidationError as error:
        return _explain(error, model)
    return []


def _model(task: str) -> type[BaseModel]:
    model = PARAMETERS.get(task)
    if model is None:
        raise ConfigurationError(f"there is no task {shown(task)}: use one of {', '.join(PARAMETERS)}")
    return model


def _as_dict(parameters: Any) -> Any:
    return dict(parameters) if isinstance(parameters, Mapping) else parameters


def _explain(error: ValidationError, model: type[BaseModel]) -> list[Explanation]:
    return [_refuse(each) for each in explain(error, schema_of(model))]


def _refuse(found: Explanation) -> Explanation:
    """Give the reason where a parameter is unknown here because no job may ever set it."""
    name = found.keys[-1] if found.keys else None
    if found.problem == "unknown key" and name in REFUSED:
        return Explanation(keys=found.keys, problem="never accepted from a job", mend=REFUSED[str(name)])
    return found


def _explain_missing(name: str, model: type[BaseModel]) -> Explanation:
    mend = schema_of(model)["properties"][name].get("allowed", "a value")
    return Explanation(keys=(name,), problem="missing", mend=f"give {mend}")


def _tell(task: str, found: list[Explanation]) -> str:
    told = "; ".join(_sentence(task, each) for each in found[:TOLD_MISTAKES])
    more = len(found) - TOLD_MISTAKES
    return f"{told}; and {more} more" if more > 0 else told


def _sentence(task: str, found: Explanation) -> str:
    if not found.keys:
        return f"the parameters: {found.problem}: {found.mend}"
    name = render_path(found.keys)
    if found.problem == "never accepted from a job":
        return f"{name} is never accepted from a job: {found.mend}"
    if found.problem == "unknown key":
        return f"{name} is not a parameter of {task}: {found.mend}"
    return f"{name}: {found.problem}: {found.mend}"
