"""Exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipemill import errors
from pipemill.cli.exits import MEANINGS, Exit, exit_of
from tests.unit.cli.conftest import Run

DOCUMENTATION = Path(__file__).parents[3] / "docs/cli.md"

#: The code of every error there is, by name; a new error needs a line here and, perhaps, in the table of the code.
EXPECTED = {
    "PipemillError": 1,
    "ConfigurationError": 4,
    "CatalogueError": 4,
    "MissingExtra": 4,
    "ModelLoadError": 4,
    "BrokerError": 5,
    "BrokerUnavailable": 5,
    "BrokerRefused": 5,
    "BlobStoreError": 5,
    "SubmitError": 6,
    "UnknownQueue": 6,
    "QueueFull": 6,
    "PayloadTooLarge": 6,
    "NotSerialisable": 6,
    "ParameterRefused": 6,
    "JobError": 3,
    "MalformedJob": 3,
    "InvalidInput": 3,
    "InvalidParameter": 3,
    "InputTooLong": 3,
    "InferenceFailed": 3,
    "InferenceInterrupted": 3,
    "OutOfMemory": 3,
    "ResultNotSerialisable": 3,
    "PayloadMissing": 3,
    "SignatureRefused": 3,
    "SourceUnavailable": 3,
    "DeliveryLimitReached": 3,
    "RetryLimitReached": 3,
    "JobFailed": 3,
    "JobCancelled": 3,
    "JobExpired": 3,
    "BlobMissing": 3,
    "MediaUnreadable": 3,
    "UnknownJob": 8,
    "ResultTimeout": 7,
}


def tree(root: type[errors.PipemillError]) -> Iterator[type[errors.PipemillError]]:
    """An error and all below it."""
    yield root
    for below in root.__subclasses__():
        yield from tree(below)


def test_every_error_has_its_code() -> None:
    """Each error of the package ends the command line with the documented code."""
    of_ours = {error for error in tree(errors.PipemillError) if error.__module__ == errors.__name__}
    assert {error.__name__: int(exit_of(error("x"))) for error in of_ours} == EXPECTED


@pytest.mark.parametrize("code", Exit)
def test_every_code_is_explained(run: Run, code: Exit) -> None:
    """The help and the documentation say what each code means, in the same words."""
    assert f"{code.value:>3}  {MEANINGS[code]}" in run("--help").output
    assert f"| {code.value} | {MEANINGS[code]} |" in DOCUMENTATION.read_text(encoding="utf-8")
