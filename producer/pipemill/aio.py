"""The client for asyncio, the twin of ``pipemill.client``: the same methods, awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from pipemill import bulk, jobs, replies
from pipemill.errors import BrokerUnavailable, PipemillError, ResultTimeout, UnknownQueue
from pipemill.following import AsyncFollowing
from pipemill.handles import AsyncJob
from pipemill.jobs import JobOptions
from pipemill.known import KnownQueues, StrPath, broker_url
from pipemill.letters import AsyncDeadLetters
from pipemill.loop import in_thread, sleep
from pipemill.protocol import JobStatus, Result, encode_arguments, names
from pipemill.replies import JobInfo
from pipemill.store.base import Accepted, AsyncQueueStore, QueueInfo, QueueReport, Standing, Submission
from pipemill.streams import StreamEvent
from pipemill.transit import Laden, Transit, encode_plain, refuse_media

__all__ = ["AsyncClient", "AsyncJob"]

T = TypeVar("T")


class AsyncClient(AsyncFollowing):
    """Enqueues jobs and looks up their results. For one event loop; close it, or use ``async with``."""

    def __init__(  # noqa: PLR0913  # each is an option of the client
        self,
        broker: str | None = None,
        *,
        catalogue: StrPath | None = None,
        store: AsyncQueueStore | None = None,
        blobs: str | None = None,
        tenant: str | None = None,
        decode: bool = True,
        check_parameters: bool = True,
        signing_keys: StrPath | None = None,
    ):
        """Connect to ``broker``, else to PIPEMILL_BROKER, else to the catalogue's, else to localhost; as ``Client``."""
        self._known = KnownQueues(catalogue)
        self._store = _open_store(broker, catalogue, signing_keys) if store is None else store
        self._transit = Transit(self._known, blobs, decodes=decode)
        self._checks_parameters = check_parameters
        self.dead = AsyncDeadLetters(self._store)  #: as ``Client.dead``
        self._tenant = jobs.check_tenant(tenant)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections."""
        await self._store.close()

    async def submit(  # each is an option of the job
        self,
        queue: str,
        inputs: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        job_id: str | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncJob:
        """Enqueue one job; ``JobOptions`` says what the options mean.

        Jobs of one queue with equal idempotency keys are one job, for a day and as long as its answer is kept. A
        ``job_id`` that the broker knows is that job: nothing is enqueued.

        Raises
        ------
        SubmitError
            When the job isn't accepted: the queue is unknown or full, a parameter is wrong, or the inputs are too
            large or neither JSON nor media.
        BrokerError
            When the broker can't be reached (then nobody knows whether it was accepted) or refuses.
        ValueError
            When an option is out of bounds.

        """
        jobs.check_queue(queue)
        terms = jobs.check_options(**jobs.mine(options, self._tenant))
        key = "" if idempotency_key is None else jobs.check_id("idempotency_key", idempotency_key)
        name = jobs.new_id() if job_id is None else jobs.check_id("job_id", job_id)
        given = await self._check_parameters(queue, parameters)
        arguments = await self._encode(encode_arguments, inputs, given, terms.eta)
        await self._check_sizes(queue, (arguments,))
        accepted = await self._enqueue(queue, (jobs.submission(queue, name, arguments, terms, key),))
        if not accepted.job_ids:
            raise replies.queue_full(queue, accepted, (), 1, terms.tenant)
        return AsyncJob(self, accepted.job_ids[0], queue)

    async def submit_many(  # each is an option of the jobs
        self,
        queue: str,
        inputs: Iterable[Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        idempotency_keys: Sequence[str] | None = None,
        chunk: int = jobs.CHUNK,
        **options: Unpack[JobOptions],
    ) -> list[AsyncJob]:
        """Enqueue many jobs, ``chunk`` of them in one round trip; they share parameters and options.

        All are checked and encoded before the first is sent, so a mistake in one leaves nothing behind.

        Raises
        ------
        QueueFull
            When not all fit; ``accepted`` has the ids of those that did, the first ones in order.
        SubmitError, BrokerError, ValueError
            As ``submit``. After a BrokerError nobody knows which were accepted: with idempotency keys, submit again.

        """
        jobs.check_queue(queue)
        terms = jobs.check_options(**jobs.mine(options, self._tenant))
        given = await self._check_parameters(queue, parameters)
        encoded = await self._encode(jobs.encode_many, list(jobs.check_many(inputs)), given, terms.eta)
        await self._check_sizes(queue, encoded)
        submissions = jobs.submissions(queue, encoded, terms, idempotency_keys)
        accepted_ids: list[str] = []
        for part in jobs.parts(submissions, chunk):
            accepted = await self._enqueue(queue, part)
            accepted_ids += accepted.job_ids
            if len(accepted.job_ids) < len(part):
                raise replies.queue_full(queue, accepted, accepted_ids, len(submissions), terms.tenant)
        return [AsyncJob(self, job_id, queue) for job_id in accepted_ids]

    async def run(
        self,
        queue: str,
        inputs: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Any:
        """Submit a job and wait for its answer, for ``timeout`` seconds; raises what both raise."""
        job = await self.submit(queue, inputs, parameters, **options)
        return await job.result(timeout)

    async def stream(
        self,
        queue: str,
        inputs: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        job_id: str | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[StreamEvent, None]:
        """Submit a job, when the first event is asked for, and ``follow`` its text; raises what both raise."""
        options["stream"] = True
        job = await self.submit(queue, inputs, parameters, job_id=job_id, **options)
        async for event in self.follow(job.id, timeout=timeout):
            yield event

    def map(  # noqa: PLR0913  # each is an option of the call
        self,
        queue: str,
        inputs: Iterable[Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        window: int = 512,
        timeout: float | None = None,
        on_progress: Callable[[int, int], object] | None = None,
        return_errors: bool = False,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[Any, None]:
        """Run any number of inputs and yield their answers in order, with at most ``window`` jobs on their way.

        ``Client.map`` says what the options mean, and what is raised.
        """
        write = encode_plain
        state = bulk.Bulk(
            queue,
            inputs,
            parameters,
            jobs.mine(options, self._tenant),
            write,
            window=window,
            timeout=timeout,
            on_progress=on_progress,
        )
        return self._map(state, return_errors=return_errors)

    async def _map(self, state: bulk.Bulk, *, return_errors: bool) -> AsyncGenerator[Any, None]:
        await self._check_parameters(state.queue, state.parameters)
        state.info = await self._info(state.queue)
        state.expect()
        try:
            while not state.over:
                pause = await self._advance(state)
                if state.ready:
                    yield await self._answer(state, return_errors=return_errors)
                    state.expect()
                elif not state.over:
                    await sleep(pause)
        finally:
            with bulk.abandoning():
                for job_id in state.outstanding:
                    await self._store.cancel(job_id)

    async def _advance(self, state: bulk.Bulk) -> float:
        """Send what is to be sent, and look for answers if the next one isn't there; how long to pause, in seconds."""
        try:
            while waiting := await self._to_send(state):
                state.note_sent(await self._enqueue(state.queue, waiting))
            if state.ready:
                return 0.0
            job_ids = state.to_look_for()
            return state.note_found(job_ids, await self._store.standings(job_ids))
        except BrokerUnavailable as error:
            return state.note_away(error)

    async def _to_send(self, state: bulk.Bulk) -> list[Submission]:
        waiting = state.to_send()
        if not state.laden:
            return waiting
        await in_thread(state.load, self._transit.encode)
        return state.to_send()

    async def _answer(self, state: bulk.Bulk, *, return_errors: bool) -> Any:
        try:
            return (await self._decoded_for(state, state.give())).get()
        except PipemillError as error:
            if return_errors and not isinstance(error, BrokerUnavailable | ResultTimeout):
                return error
            raise

    async def _decoded_for(self, state: bulk.Bulk, result: Result) -> Result:
        """Decode an answer; a broker that restarts is waited for."""
        while True:
            try:
                return await self._decoded(result)
            except BrokerUnavailable as error:
                await sleep(state.note_away(error))

    def job(self, job_id: str) -> AsyncJob:
        """Return a handle on a job submitted before, here or elsewhere; nothing is asked of the broker."""
        return AsyncJob(self, job_id)

    async def status(self, job_id: str) -> JobStatus:
        """Where a job stands."""
        return replies.status_of(await self._look(job_id))

    async def describe(self, job_id: str) -> JobInfo:
        """Where a job stands, with its position and an estimate while it is queued."""
        standing = await self._look(job_id)
        waits = replies.status_of(standing) is JobStatus.QUEUED
        rate = await self._rate(standing.queue) if waits and standing.queue else None
        return replies.job_info(job_id, standing, rate)

    async def result(self, job_id: str, timeout: float | None = None) -> Any:
        """Wait for a job's answer and return it; ``timeout`` in seconds: None for ever, 0 looks once.

        Raises
        ------
        JobError
            When it ended other than well; the subclass says how.
        ResultTimeout
            When it hasn't ended in time; it goes on.
        UnknownJob
            When there is no trace of it.
        BlobMissing, MediaUnreadable
            When media of the answer are gone, or broken.
        BrokerError
            When the broker can't be reached or refuses.

        """
        deadline = replies.Deadline(timeout)
        looks = timeout == 0 or not jobs.is_id(job_id)
        standing = await self._look(job_id) if looks else await self._store.wait(job_id, deadline.next_wait())
        while (end := replies.ended(job_id, standing)) is None:
            if deadline.left() <= 0:
                raise replies.result_timeout(job_id, standing, timeout)
            standing = await self._store.wait(job_id, deadline.next_wait())
        return (await self._decoded(end)).get()

    async def results(self, job_ids: Iterable[str | AsyncJob], timeout: float | None = None) -> list[Result]:
        """Wait until all of these jobs ended and return how each did, in order; no JobError is raised.

        Raises
        ------
        ResultTimeout
            When not all have ended in ``timeout`` seconds.
        UnknownJob
            When there is no trace of one of them.
        BlobMissing, MediaUnreadable
            When media of an answer are gone, or broken.
        BrokerError
            When the broker can't be reached or refuses.

        """
        wanted = [each.id if isinstance(each, AsyncJob) else each for each in job_ids]
        gathering, deadline = bulk.Gathering(wanted), replies.Deadline(timeout)
        while looked_for := gathering.to_look_for():
            found = gathering.note(looked_for, await self._store.standings(looked_for))
            if not found and deadline.left() <= 0:
                raise replies.results_timeout(len(gathering.open), len(wanted), timeout)
            if found < len(looked_for):
                await sleep(min(gathering.pace.after(found=found > 0), max(deadline.left(), 0.0)))
        return [await self._decoded(result) for result in gathering.results(wanted)]

    async def cancel(self, job_id: str) -> bool:
        """End a job as cancelled; False if it had ended. A worker that is at it drops it or its answer.

        Raises
        ------
        UnknownJob
            When there is no trace of it.
        BrokerError
            When the broker can't be reached or refuses.

        """
        cancelled = await self._store.cancel(job_id) if jobs.is_id(job_id) else None
        if cancelled is None:
            raise replies.unknown_job(job_id)
        return cancelled

    async def queues(self) -> list[QueueReport]:
        """All known queues as they stand, by name."""
        return await self._store.reports()

    async def _look(self, job_id: str) -> Standing:
        return (await self._store.standings((job_id,)))[0] if jobs.is_id(job_id) else Standing()

    async def _encode(self, encode: Callable[..., T], inputs: Any, parameters: dict[str, Any], eta: float | None) -> T:
        """Encode here what is JSON, and in a thread what holds media: they may take long."""
        try:
            return encode(inputs, parameters, refuse_media)
        except Laden:
            return await in_thread(encode, inputs, parameters, self._transit.hook(eta))

    async def _decoded(self, result: Result) -> Result:
        if not self._transit.decodes(result):
            return result
        return await in_thread(self._transit.decode, result, self._store)

    async def _enqueue(self, queue: str, submissions: Sequence[Submission]) -> Accepted:
        accepted = await self._store.enqueue(queue, submissions)
        if accepted is None and await self._declare(queue):
            accepted = await self._store.enqueue(queue, submissions)
        if accepted is None:
            raise await self._unknown(queue)
        return accepted

    async def _declare(self, queue: str) -> QueueInfo | None:
        """Make a queue of the catalogue known."""
        info = self._known.in_catalogue(queue)
        if info is not None:
            await self._store.declare(info)
        return info

    async def _unknown(self, queue: str) -> UnknownQueue:
        known = [report.info.name for report in await self._store.reports()]
        return replies.unknown_queue(queue, known, has_catalogue=self._known.has_catalogue)

    async def _check_parameters(self, queue: str, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return parameters as a dict; what the queue's task doesn't take is refused."""
        given = jobs.check_parameters(parameters)
        if given and self._checks_parameters:
            jobs.check_task_takes(await self._info(queue), given)
        return given

    async def _check_sizes(self, queue: str, encoded: Sequence[bytes]) -> None:
        """Refuse what is too large; only what is large at all is worth a look at the limit."""
        large = [arguments for arguments in encoded if len(arguments) > names.REFERENCE_BYTES]
        if large:
            jobs.check_size(max(large, key=len), await self._info(queue))

    async def _info(self, queue: str) -> QueueInfo:
        info = self._known.infos.get(queue) or await self._store.info(queue) or await self._declare(queue)
        if info is None:
            raise await self._unknown(queue)
        self._known.infos.put(queue, info)
        return info

    async def _rate(self, queue: str) -> float | None:
        if self._known.rate(queue) is None:
            self._known.remember_rates(await self._store.reports())
        return self._known.rate(queue)


def _open_store(broker: str | None, catalogue: StrPath | None, signing_keys: StrPath | None) -> AsyncQueueStore:
    from pipemill.signing import signer_of  # noqa: PLC0415  # it brings hmac, which few clients need
    from pipemill.store.aio_queues import AsyncRedisQueueStore  # noqa: PLC0415  # it brings redis

    return AsyncRedisQueueStore(broker_url(broker, catalogue), signer=signer_of(signing_keys))
