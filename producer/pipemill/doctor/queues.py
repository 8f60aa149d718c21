"""The queues as the broker has them beside those of the catalogue, judged: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pipemill.doctor.findings import Finding, Verdict, counted
from pipemill.store.base import QueueInfo, QueueReport

#: Share of a queue's depth above which refusals are near.
HIGH_SHARE: Final = 0.8


def judge_queues(reports: Sequence[QueueReport], catalogue: Mapping[str, QueueInfo]) -> list[Finding]:
    """A finding for each thing to say of a queue, and one if there is none."""
    found = [finding for report in reports for finding in judge_queue(report, catalogue.get(report.info.name))]
    known = {report.info.name for report in reports}
    unknown = sorted(catalogue.keys() - known)
    if unknown:
        seen = (
            f"never announced: {', '.join(unknown)}; clients without the catalogue can't use what no worker announced"
        )
        found.append(_found("catalogue", Verdict.WARNING, seen, f"start a worker: pipemill worker {' '.join(unknown)}"))
    mend = "start a worker, which announces its queues: pipemill worker"
    return found or [_found("queues", Verdict.SKIPPED, "nobody has announced a queue yet", mend)]


def _found(name: str, verdict: Verdict, seen: str, mend: str = "") -> Finding:
    return Finding(area="queues", name=name, verdict=verdict, seen=seen, mend=mend)


def judge_queue(report: QueueReport, meant: QueueInfo | None) -> list[Finding]:
    """What is wrong with a queue; that nothing is, if nothing is. ``meant`` is what the catalogue says of it."""
    name, waiting = report.info.name, sum(report.waiting.values())
    found = [*_unserved(report, waiting), *_depth(report, waiting), *_letters(report), *_differences(report, meant)]
    if found:
        return found
    state = f"{waiting} waiting, {report.leased} leased, {counted(len(report.lanes), 'lane')}"
    return [_found(name, Verdict.OK, state + ("" if meant else "; not in this catalogue"))]


def _unserved(report: QueueReport, waiting: int) -> Iterator[Finding]:
    name = report.info.name
    if not report.lanes and (waiting or report.leased):
        seen = f"{counted(waiting, 'job')} waiting, {report.leased} leased, and no lane serves it"
        yield _found(name, Verdict.PROBLEM, seen, f"start a worker: pipemill worker {name}")
    elif report.lanes and all(lane.get("paused") for lane in report.lanes.values()):
        seen = f"every lane is paused ({len(report.lanes)}), with {counted(waiting, 'job')} waiting"
        mend = f"celery -A pipemill_worker.app control add_consumer {name}"
        yield _found(name, Verdict.PROBLEM if waiting else Verdict.WARNING, seen, mend)


def _depth(report: QueueReport, waiting: int) -> Iterator[Finding]:
    most = report.info.max_depth
    if waiting >= HIGH_SHARE * most:
        mend = "add workers, or raise limits.max_depth if so many may wait"
        seen = f"{waiting} of {most} jobs wait: further ones are refused{' soon' if waiting < most else ''}"
        yield _found(report.info.name, Verdict.WARNING if waiting < most else Verdict.PROBLEM, seen, mend)


def _letters(report: QueueReport) -> Iterator[Finding]:
    if report.dead:
        mend = f"see what they have in common: pipemill dead list {report.info.name}"
        yield _found(report.info.name, Verdict.WARNING, f"{counted(report.dead, 'dead letter')} kept", mend)


def _differences(report: QueueReport, meant: QueueInfo | None) -> Iterator[Finding]:
    if meant is None:
        return
    for what in ("task", "model", "max_depth", "max_input_bytes", "result_ttl_seconds"):
        there, here = getattr(report.info, what), getattr(meant, what)
        if there != here:
            seen = f"announced with {what} {there or 'none'}, and the catalogue says {here or 'none'}"
            yield _found(report.info.name, Verdict.WARNING, seen, "restart its workers with this catalogue")
