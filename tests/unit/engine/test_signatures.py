"""A lane that asks for signatures: who isn't signed fails alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from pipemill.errors import SignatureRefused
from pipemill.protocol import encode_arguments, encode_message
from pipemill.signing import Keyring, Signer, Verifier
from pipemill.store.base import Submission
from pipemill_worker.engine import Lane
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Rig

KEYRING = Keyring(text=f"acme-1 {secrets.token_urlsafe(32)}")
STRANGER = Keyring(text=f"acme-1 {secrets.token_urlsafe(32)}")


@pytest.fixture
def rig() -> Rig:
    """A broker in memory."""
    return Rig()


@pytest.fixture
def lane(rig: Rig) -> Iterator[Lane]:
    """A running lane that requires signatures."""
    made = rig.lane()
    made.verifier = Verifier(keyring=KEYRING, required=True, max_age_seconds=60)
    with rig.running(made):
        yield made


def job(job_id: str, word: str = "word", *, large: bool = False) -> Submission:
    """An unsigned job, sent by reference if it is large."""
    arguments = encode_arguments(word, {})
    message = encode_message(job_id, QUEUE, arguments, by_reference=large)
    return Submission(job_id=job_id, list_index=0, message=message, payload=arguments if large else None)


def error_of(rig: Rig, job_id: str) -> str:
    """The error of a job that was refused for its signature."""
    found = rig.result(job_id)
    assert isinstance(found.error, SignatureRefused)
    return str(found.error)


def test_jobs_without_the_right_signature_fail_alone(rig: Rig, lane: Lane) -> None:
    """Signed neighbours are answered; each refusal says why, is counted, and reaches no pipeline."""
    good = [job(f"good {n}", f"word{n}") for n in range(3)]
    signed = Signer(KEYRING).sign(QUEUE, good)
    forged = Signer(STRANGER).sign(QUEUE, [job("forged", "forged")])
    rig.producer.enqueue(QUEUE, [signed[0], job("unsigned", "unsigned"), signed[1], *forged, signed[2]])
    assert rig.answers([each.job_id for each in good]) == ["WORD0", "WORD1", "WORD2"]
    assert "takes signed jobs only" in error_of(rig, "unsigned")
    assert "isn't what was signed" in error_of(rig, "forged")
    assert {"unsigned", "forged"}.isdisjoint(word for batch in rig.runner.batches for word in batch)
    assert until(lambda: lane.facts()["refused_signatures"] == 2, "both refusals are counted")


@pytest.mark.usefixtures("lane")
def test_inputs_sent_by_reference_are_checked_when_they_are_fetched(rig: Rig) -> None:
    """What was put in the place of a payload fails its job; what is as it was signed is answered."""
    rig.producer.enqueue(QUEUE, Signer(KEYRING).sign(QUEUE, [job("kept", "kept", large=True)]))
    assert rig.answers(["kept"]) == ["KEPT"]
    (swapped,) = Signer(KEYRING).sign(QUEUE, [job("swapped", "swapped", large=True)])
    other = Submission(
        job_id="swapped", list_index=0, message=swapped.message, payload=encode_arguments("something else", {})
    )
    rig.producer.enqueue(QUEUE, [other])
    assert "aren't those that were signed" in error_of(rig, "swapped")
