"""A producer's view of the broker in memory, for tests and ``pipemill.testing``."""

from __future__ import annotations

from collections.abc import Sequence

from pipemill.errors import JobCancelled, JobExpired
from pipemill.protocol import (
    Outcome,
    decode_message,
    encode_failure,
    message_bytes,
    names,
)
from pipemill.store import wire
from pipemill.store.base import (
    Accepted,
    BlobStore,
    QueueInfo,
    QueueReport,
    Standing,
    Submission,
)
from pipemill.store.bounds import Bound, Crowd, bound_met
from pipemill.store.lists import Waiting
from pipemill.store.memory import MemoryBroker, MemoryQueue
from pipemill.store.memory_dead import MemoryDeadLetters
from pipemill.store.streams import StreamEntry, entry_number


def _refused(queue: MemoryQueue, job: Submission, met: Bound, accepted: list[str], depth: int) -> Accepted:
    return Accepted(
        job_ids=accepted,
        depth=depth,
        max_depth=queue.info.max_depth,
        bound=met.name,
        limit=met.limit,
        standing=met.standing,
        standing_jobs=met.standing_jobs,
        refused_bytes=message_bytes(job.message),
        tenants=queue.lists.sharing(job.list_index),
        rate=wire.total_rate(queue.lanes),
    )


class MemoryQueueStore(MemoryDeadLetters):
    """A producer's view of the broker in memory."""

    def __init__(self, broker: MemoryBroker):
        super().__init__(broker)
        self.blobs: BlobStore = broker.blobs

    def enqueue(self, queue: str, submissions: Sequence[Submission]) -> Accepted | None:
        """Accept jobs up to the depth cap; None when the queue is unknown."""
        with self._broker.changed:
            if queue not in self._broker.announced:
                return None
            there = self._broker.queue(queue)
            depth, accepted = there.depth, []
            for job in submissions:
                known = self._known(queue, job)
                due = known is None and not job.is_over(self._broker.now())
                met = self._bound_met(there, Waiting(job.message)) if due else None
                if met is not None:
                    break
                accepted.append(known or self._accept(there, job))
            else:
                met = None
            self._broker.changed.notify_all()
            if met is not None:
                return _refused(there, job, met, accepted, depth)
            return Accepted(job_ids=accepted, depth=depth, max_depth=there.info.max_depth)

    def _bound_met(self, queue: MemoryQueue, job: Waiting) -> Bound | None:
        info, lists = queue.info, queue.lists
        # Only what is bounded is added up: a test may well put 10,000 jobs into a queue.
        bounds_tenants = info.max_tenant_depth is not None or info.max_tenant_bytes is not None
        tenant_jobs, tenant_bytes = lists.of(job.home(fair=info.fair)) if bounds_tenants else (0, 0)
        crowd = Crowd(
            depth=queue.depth,
            jobs=len(lists),
            bytes=lists.bytes if info.max_bytes is not None else 0,
            tenant_jobs=tenant_jobs,
            tenant_bytes=tenant_bytes,
            memory_share=self._broker.memory_share,
        )
        return bound_met(info, crowd, job.bytes)

    def _known(self, queue: str, job: Submission) -> str | None:
        known = self._broker.once.get((queue, job.idempotency_key)) if job.idempotency_key else None
        if known not in self._broker.records and known not in self._broker.results:
            known = known if decode_message(job.message, queue).ignore_result else None  # nobody wants its answer
        if known is None and (job.job_id in self._broker.records or job.job_id in self._broker.results):
            return job.job_id
        return known

    def _accept(self, queue: MemoryQueue, job: Submission) -> str:
        broker, name = self._broker, queue.info.name
        queue.count("enqueued")
        if job.idempotency_key:
            broker.once[name, job.idempotency_key] = job.job_id
        if job.is_over(broker.now()):
            queue.count(Outcome.EXPIRED)
            broker.results[job.job_id] = encode_failure(job.job_id, JobExpired("it came after its deadline"))
            return job.job_id
        waiting = Waiting(job.message)
        queue.lists.add(job.list_index, waiting, fair=queue.info.fair)
        ahead = queue.lists.ahead(job.list_index, waiting, queue.depth, fair=queue.info.fair)
        ordinal = queue.totals.get("taken", 0) + ahead
        broker.records[job.job_id] = ("q", ordinal, name)
        if job.expires is not None:
            broker.deadlines[job.job_id] = job.expires
        if job.payload is not None:
            broker.payloads[job.job_id] = job.payload
        return job.job_id

    def declare(self, info: QueueInfo) -> None:
        """Make a queue known, unless it is."""
        with self._broker.changed:
            if info.name not in self._broker.announced:
                self._broker.announced.add(info.name)
                self._broker.queue(info.name).info = info

    def info(self, queue: str) -> QueueInfo | None:
        """What the queue announced of itself."""
        with self._broker.changed:
            return self._broker.queue(queue).info if queue in self._broker.announced else None

    def standings(self, job_ids: Sequence[str]) -> list[Standing]:
        """What is known of each job, in order."""
        with self._broker.changed:
            for job_id in job_ids:
                self._broker.end_overdue(job_id)
            read = [
                wire.read_standing(job_id, self._broker.results.get(job_id), self._record(job_id)) for job_id in job_ids
            ]
            taken = {name: self._broker.queue(name).totals.get("taken", 0) for name in wire.queues_waited_in(read)}
            return wire.placed(read, taken)

    def _record(self, job_id: str) -> bytes | None:
        record = self._broker.records.get(job_id)
        return f"{record[0]}|{record[1]}|{record[2]}".encode() if record else None

    def wait(self, job_id: str, timeout: float) -> Standing:
        """What is known of a job once it has ended, or after ``timeout`` seconds."""
        broker = self._broker
        with broker.changed:
            broker.end_overdue(job_id)
            broker.changed.wait_for(lambda: broker.ending(job_id) or job_id not in broker.records, timeout)
        return self.standings([job_id])[0]

    def cancel(self, job_id: str) -> bool | None:
        """End a job as cancelled."""
        with self._broker.changed:
            broker = self._broker
            if broker.ending(job_id):
                return False
            if job_id not in broker.records:
                return None
            broker.end(job_id, JobCancelled("the job was cancelled"))
            return True

    def read_stream(self, job_id: str, after: str, timeout: float) -> list[StreamEntry]:
        """Entries of a job's stream behind ``after``; waits for ``timeout`` seconds at most until there is one."""
        broker, behind = self._broker, entry_number(after)

        def found() -> list[StreamEntry]:
            return [entry for entry in broker.streams.get(job_id, ()) if entry_number(entry.id) > behind]

        with broker.changed:
            broker.changed.wait_for(found, timeout)
            return found()

    def reports(self) -> list[QueueReport]:
        """All known queues, by name."""
        with self._broker.changed:
            return [self._report(self._broker.queue(name)) for name in sorted(self._broker.announced)]

    def _report(self, queue: MemoryQueue) -> QueueReport:
        held = [owner for owner in self._broker.held if names.owner_queue(owner) == queue.info.name]
        return QueueReport(
            info=queue.info,
            waiting=queue.lists.by_step(),
            tenants=queue.lists.by_tenant(),
            waiting_bytes=queue.lists.bytes,
            parked=len(queue.parked),
            leased=sum(len(self._broker.held[owner]) for owner in held),
            dead=len(queue.dead),
            totals=dict(queue.totals),
            lanes=dict(queue.lanes),
        )

    def close(self) -> None:
        """Nothing to close."""
