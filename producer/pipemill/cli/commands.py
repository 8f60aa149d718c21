"""The commands by name: where each is, and its help. Knowing them imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final

import click

from pipemill.errors import MissingExtra

#: The entry points of commands that other parts of pipemill bring along.
GROUP: Final = "pipemill.commands"
#: Packages whose import errors are faults of ours, not a missing extra.
_OURS: Final = frozenset({"pipemill", "pipemill_worker"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command that isn't loaded yet."""

    #: Its line in the list of commands.
    help: str
    #: Module and attribute, as in ``pipemill.cli.jobs:submit``; None for one that an entry point of ``GROUP`` names.
    where: str | None = None
    #: The extra that it needs, or None.
    extra: str | None = None


#: All commands, in the order in which the help lists them.
COMMANDS: Final[Mapping[str, Entry]] = {
    "submit": Entry(where="pipemill.cli.jobs:submit", help="Submit one job."),
    "result": Entry(where="pipemill.cli.jobs:result", help="Print a job's answer, waiting for it."),
    "follow": Entry(where="pipemill.cli.streams:follow", help="Print a job's text while it is written."),
    "status": Entry(where="pipemill.cli.jobs:status", help="Say where a job stands."),
    "cancel": Entry(where="pipemill.cli.jobs:cancel", help="Cancel a job."),
    "map": Entry(where="pipemill.cli.bulk:map_lines", help="Run a file of inputs through a queue."),
    "queues": Entry(where="pipemill.cli.queues:queues", help="List the queues and how they stand."),
    "dead": Entry(where="pipemill.cli.dead:dead", help="Look at dead letters, replay or drop them."),
    "schema": Entry(where="pipemill.cli.schema:schema", help="Say which parameters a task takes, as a JSON Schema."),
    "check": Entry(where="pipemill.cli.setup:check", help="Name every mistake in a catalogue."),
    "doctor": Entry(
        where="pipemill.cli.doctor:doctor", help="Look for what is wrong with the broker and this machine."
    ),
    "acl": Entry(where="pipemill.cli.acl:acl", help="Write the rules that a user of the broker needs, and no more."),
    "broker": Entry(where="pipemill.cli.setup:broker", help="Run a Valkey server for trying things out."),
    "worker": Entry(extra="worker", help="Start a worker."),
    "health": Entry(where="pipemill.cli.health:health", help="Say whether a worker lives, or serves."),
    "demo": Entry(extra="worker", help="Show a broker, a worker and jobs in one go."),
    "fetch": Entry(extra="worker", help="Download the catalogue's models."),
    "calibrate": Entry(extra="worker", help="Measure a queue's model on this machine."),
    "version": Entry(where="pipemill.cli.setup:version", help="Print the version."),
}


def load(name: str) -> click.Command | None:
    """Import a command; None when there is no such command.

    Raises
    ------
    MissingExtra
        When the command needs packages that aren't installed.

    """
    entry = COMMANDS.get(name)
    if entry is None:
        return None
    try:
        return _find(name, entry)
    except ImportError as error:
        missing = missing_extra(name, error)
        if missing is None:
            raise
        raise missing from error


def _find(name: str, entry: Entry) -> click.Command:
    if entry.where is not None:
        module, _, attribute = entry.where.partition(":")
        found = getattr(importlib.import_module(module), attribute)
    else:
        found = next(iter(entry_points(group=GROUP, name=name))).load()
    if not isinstance(found, click.Command):
        text = f"`pipemill {name}` is a {type(found).__name__}, not a click command; mend its entry point in {GROUP}"
        raise TypeError(text)
    return found


def missing_extra(name: str, error: ImportError) -> MissingExtra | None:
    """Tell which extra a command lacks; None when the import failed by a fault of ours."""
    root = (error.name or "").partition(".")[0]
    extra = COMMANDS[name].extra if name in COMMANDS else None
    if extra is None or root in _OURS:
        return None
    return MissingExtra(f'`pipemill {name}` needs an extra: pip install "pipemill[{extra}]" ({error})')
