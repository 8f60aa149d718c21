"""Looks at everything there is: the catalogue, the broker, the queues, and what a worker needs of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from pipemill.catalogue import Catalogue, find_catalogue, find_mistakes, load_catalogue, resolve_broker
from pipemill.doctor.broker import judge_broker
from pipemill.doctor.findings import Finding, Verdict, counted
from pipemill.doctor.probe import look_at_broker, look_at_queues
from pipemill.doctor.queues import judge_queues
from pipemill.errors import BrokerError, ConfigurationError
from pipemill.known import queue_info
from pipemill.store.base import QueueInfo

#: The entry points of checks that other parts of pipemill bring along; each is called with the catalogue.
GROUP: Final = "pipemill.checks"

Check = Callable[[Catalogue], Iterable[Finding]]


def examine(broker: str | None = None, catalogue: str | os.PathLike[str] | None = None) -> list[Finding]:
    """Look at everything; what can't be looked at is told as well."""
    found, loaded = examine_catalogue(broker, catalogue)
    infos = {name: queue_info(name, queue) for name, queue in loaded.queues.items()} if loaded else {}
    found += examine_broker(broker, catalogue, infos)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        found += run_check(point, loaded)
    return found


def examine_catalogue(
    broker: str | None, file: str | os.PathLike[str] | None
) -> tuple[list[Finding], Catalogue | None]:
    """What there is to say of the catalogue, and the catalogue itself if it can be used."""
    path, options = find_catalogue(file), {"broker": broker}
    if path is None:
        seen, mend = "there is none here", "name one (--catalogue) to have its queues and models looked at"
        return [Finding(area="catalogue", name="file", verdict=Verdict.SKIPPED, seen=seen, mend=mend)], None
    mistakes = find_mistakes(path, overrides=options, check_files=True)
    if mistakes:
        return [
            Finding(
                area="catalogue",
                name=mistake.path or "file",
                verdict=Verdict.PROBLEM,
                seen=f"{path}{f', line {mistake.line}' if mistake.line else ''}: {mistake.problem}",
                mend=mistake.mend,
            )
            for mistake in mistakes
        ], None
    loaded = load_catalogue(path, overrides=options)
    seen = (
        f"{path}: no mistakes in {counted(len(loaded.queues), 'queue')}; every model of the hub is pinned to a commit"
    )
    return [Finding(area="catalogue", name="file", verdict=Verdict.OK, seen=seen)], loaded


def examine_broker(
    broker: str | None, file: str | os.PathLike[str] | None, infos: Mapping[str, QueueInfo]
) -> list[Finding]:
    """What there is to say of the broker and its queues."""
    try:
        url = resolve_broker(broker, file)
        found = judge_broker(look_at_broker(url, infos))
    except ConfigurationError as error:
        return [_broker("url", str(error), "mend the URL: PIPEMILL_BROKER, --broker, or the catalogue's")]
    except BrokerError as error:
        mend = "see that it runs, that this host may reach it, and that user and password are right"
        return [_broker("answers", str(error), mend)]
    try:
        return found + judge_queues(look_at_queues(url), infos)
    except BrokerError as error:
        seen = f"they can't be read: {error}"
        mend = "see the broker's findings above"
        return [*found, Finding(area="queues", name="queues", verdict=Verdict.PROBLEM, seen=seen, mend=mend)]


def _broker(name: str, seen: str, mend: str) -> Finding:
    return Finding(area="broker", name=name, verdict=Verdict.PROBLEM, seen=" ".join(seen.split()), mend=mend)


def run_check(point: EntryPoint, catalogue: Catalogue | None) -> list[Finding]:
    """Run a check that another part brings along, if its packages are here and there is a catalogue to check."""
    skipped = Finding(area=point.name, name="checks", verdict=Verdict.SKIPPED, seen="there is no catalogue to check")
    if catalogue is None:
        return [skipped]
    try:
        check: Check = point.load()
        return list(check(catalogue))
    except ModuleNotFoundError as error:
        seen = f"this machine has no {point.name}'s packages, as producers need none ({error.name} is missing)"
        mend = f'where workers run: pip install "pipemill[{point.name}]"'
        return [Finding(area=point.name, name="checks", verdict=Verdict.SKIPPED, seen=seen, mend=mend)]
    except ImportError as error:
        seen = f"a package of a {point.name}'s is here and can't be loaded ({str(error)[:200]})"
        mend = f'install it again: pip install --force-reinstall "pipemill[{point.name}]"'
        return [Finding(area=point.name, name="checks", verdict=Verdict.PROBLEM, seen=seen, mend=mend)]
    except Exception as error:  # noqa: BLE001  # one check that fails leaves the others' findings
        seen = f"the check itself failed ({type(error).__name__}: {str(error)[:200]})"
        return [Finding(area=point.name, name="checks", verdict=Verdict.PROBLEM, seen=seen, mend="tell us of it")]
