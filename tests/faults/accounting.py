"""The accountant: for every job exactly one end, with the right answer, unchanged ever after, and nothing left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from typing import Any, Final

from pipemill.protocol import decode_result

#: What a float may differ by, as the product promises.
TOLERANCE: Final = 1e-4
#: Most job ids that a report names of each kind of mistake.
NAMED: Final = 5


@dataclass(slots=True)
class Sightings:
    """What was seen of results while they came, by whoever looked or listened."""

    #: By job id, the digest of the first result document that anybody saw.
    first: dict[str, bytes] = field(default_factory=dict)
    #: Job ids whose document was seen to differ from the first.
    changed: set[str] = field(default_factory=set)
    #: By job id, how often a result was published.
    published: Counter[str] = field(default_factory=Counter)

    def note(self, job_id: str, document: bytes) -> None:
        """A result document was seen."""
        if self.differs(job_id, document):
            self.changed.add(job_id)
        self.first.setdefault(job_id, _digest(document))

    def differs(self, job_id: str, document: bytes) -> bool:
        """Whether it isn't the document that was seen first."""
        return self.first.get(job_id, _digest(document)) != _digest(document)

    def hear(self, job_id: str, document: bytes) -> None:
        """A result document was published."""
        self.published[job_id] += 1
        self.note(job_id, document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What lies in the broker once everybody has gone home; all should be 0."""

    #: Jobs in leases, and in the inboxes of waiting workers.
    leased: int = 0
    inboxes: int = 0
    #: Owners with a deadline.
    owners: int = 0
    #: Jobs in the queues' lists, and parked ones.
    waiting: int = 0
    parked: int = 0
    #: Records of jobs that haven't ended, and inputs that lie beside their messages.
    records: int = 0
    payloads: int = 0

    @property
    def nothing(self) -> bool:
        """Whether nothing is left."""
        return not any(asdict(self).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of all jobs."""

    submitted: int
    #: Jobs by how they ended.
    ended: Mapping[str, int]
    #: Jobs without a result.
    lost: Sequence[str]
    #: Jobs whose answer isn't the one expected.
    wrong: Sequence[str]
    #: Jobs whose stored result isn't the one that was seen first.
    changed: Sequence[str]
    #: Jobs whose result was published more than once.
    repeated: Sequence[str]
    #: Results of jobs that nobody submitted.
    strangers: Sequence[str]
    #: Jobs whose publication nobody heard: the listener's own connection was down.
    unheard: int
    left: Leftovers

    @property
    def balanced(self) -> bool:
        """Whether each job has its one right end, and nothing is left."""
        return self.left.nothing and not any(
            (self.lost, self.wrong, self.changed, self.repeated, self.strangers, self.submitted == 0)
        )

    def figures(self) -> dict[str, Any]:
        """As JSON: numbers, and a few job ids of each mistake."""
        mistakes = {name: getattr(self, name) for name in ("lost", "wrong", "changed", "repeated", "strangers")}
        named = {name: list(ids)[:NAMED] for name, ids in mistakes.items() if ids}
        return {
            "balanced": self.balanced,
            "submitted": self.submitted,
            "ended": dict(self.ended),
            **{name: len(ids) for name, ids in mistakes.items()},
            "unheard": self.unheard,
            "left": {each.name: getattr(self.left, each.name) for each in fields(self.left)},
            **({"named": named} if named else {}),
        }


def _digest(document: bytes) -> bytes:
    return blake2b(document, digest_size=16).digest()


def settle(
    expected: Mapping[str, Any], seen: Sightings, stored: Mapping[str, bytes | None], left: Leftovers
) -> Account:
    """Draw up the account: what was to be answered, what was seen on the way, and what is stored at the end."""
    ended: Counter[str] = Counter()
    lost, wrong = list[str](), list[str]()
    changed = set(seen.changed)
    for job_id, answer in expected.items():
        document = stored.get(job_id)
        result = decode_result(job_id, document) if document else None
        if document is None or result is None:
            lost.append(job_id)
            continue
        ended[result.status.value] += 1
        if result.error is not None or not alike(result.value, answer):
            wrong.append(job_id)
        if seen.differs(job_id, document):
            changed.add(job_id)
    return Account(
        submitted=len(expected),
        ended=ended,
        lost=lost,
        wrong=wrong,
        changed=sorted(changed),
        repeated=sorted(job_id for job_id, times in seen.published.items() if times > 1),
        strangers=sorted(seen.first.keys() - expected.keys()),
        unheard=sum(job_id not in seen.published for job_id in expected),
        left=left,
    )


def alike(answer: Any, expected: Any) -> bool:
    """Equal in all that is discrete, within the tolerance where it is a float."""
    if isinstance(expected, float) and isinstance(answer, float | int):
        return math.isclose(answer, expected, rel_tol=0, abs_tol=TOLERANCE)
    if isinstance(expected, dict) and isinstance(answer, dict):
        return answer.keys() == expected.keys() and all(alike(answer[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(answer, list):
        return len(answer) == len(expected) and all(map(alike, answer, expected))
    return type(answer) is type(expected) and bool(answer == expected)
