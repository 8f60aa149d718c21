"""Messages that nobody should send: bytes, broken messages, and whole ones with something odd in one place.

All chance comes from a seeded ``random.Random``, so that a failure can be had again.
"""

from __future__ import annotations

import json
import random
import uuid
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pipemill.protocol import names
from tests import malformed

#: Ids that Redis, JSON or a log may stumble over.
IDS: Final[Sequence[Any]] = (
    "",
    "\x00",
    "\ud800",
    "a\nb",
    '"quoted"',
    "i" * 255,
    "i" * 300,
    "\U0001f600" * 200,
    "|1|",
    "\x01\x02",
    0,
    None,
    [],
    {"id": "id"},
    True,
    1e400,
)
#: Times that a calendar may stumble over.
TIMES: Final[Sequence[Any]] = (
    "yesterday",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2020-01-01",
    "2020-01-01T00:00:00",
    "2020-W01-1",
    "",
    0,
    -1e18,
    [],
    "\ud800",
)
#: Bodies that are no arguments.
BODIES: Final[Sequence[Any]] = (
    "",
    "not base64!",
    "e30=",
    b64encode(b"[" * 100_000).decode(),
    b64encode(b"\xff\xfe\x00").decode(),
    b64encode(b"[[1],{},{},{}]").decode(),
    b64encode(b'[["x"],{"":{}},null]').decode(),
    b64encode(b'[["x"],{},{"chord":7}]').decode(),
    None,
    7,
    [],
)
#: What stands in the place of a delivery count.
COUNTS: Final[Sequence[bytes]] = (b"", b"-1", b"1", b"2", b"99", b"1e3", b"9" * 400, b"\xd9\xa1", b" 1")
#: Canvas of all shapes: each is asked of Celery when its job ends.
CANVASES: Final[Sequence[Mapping[str, Any]]] = (
    {"callbacks": "x"},
    {"callbacks": [{}]},
    {"callbacks": [{"task": 1, "options": 7}]},
    {"callbacks": [{"task": "x", "args": [], "kwargs": {}, "options": {"queue": names.LEASES_KEY}}]},
    {"callbacks": [{"task": "x", "args": [], "kwargs": {}, "options": {"queue": names.QUEUES_KEY, "priority": 3}}]},
    {"callbacks": [{"task": "x", "args": [], "kwargs": {}, "options": {"priority": "high"}}]},
    {"errbacks": [None]},
    {"chain": [[]]},
    {"chain": [{"task": "x"}, 5]},
    {"chord": {"task": "x", "args": [], "kwargs": {}, "options": {}}},
    {"chord": "x"},
    {"chord": {"task": "x", "chord_size": "many"}},
)
#: Headers that go with a canvas.
GROUPS: Final[Sequence[Mapping[str, Any]]] = (
    {},
    {"group": "g", "group_index": "first"},
    {"group": "g", "group_index": [1]},
    {"group": {"g": 1}},
    {"group": "g", "group_index": None},
    {"group": "\ud800"},
)


def message(rng: random.Random) -> bytes:
    """An odd message."""
    kinds: Sequence[tuple[Callable[[random.Random], bytes], int]] = (
        (_noise, 10),
        (_anything, 15),
        (_broken, 25),
        (_odd_header, 20),
        (_odd_body, 10),
        (_odd_canvas, 8),
        (_spoilt, 10),
        (_delivered, 2),
    )
    (make,) = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
    return make(rng)


def _whole(rng: random.Random, inputs: Any = "fuzz", canvas: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A message as Celery writes it, of a job of its own."""
    body = json.dumps([[inputs], {}, canvas or {}]).encode()
    return {
        "body": b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": str(uuid.UUID(int=rng.getrandbits(128))), "task": names.TASK_NAME},
        "properties": {"body_encoding": "base64", "priority": 0},
    }


def _written(whole: Any) -> bytes:
    return json.dumps(whole).encode()


def _noise(rng: random.Random) -> bytes:
    """Bytes."""
    return rng.randbytes(rng.choice((0, 1, 2, 10, 100, 5_000)))


def _anything(rng: random.Random) -> bytes:
    """JSON that is no message."""
    return _written(malformed.value(rng))


def _broken(rng: random.Random) -> bytes:
    """A message with bytes changed, cut off, doubled or put in."""
    raw = bytearray(_written(_whole(rng)))
    for _ in range(rng.randint(1, 3)):
        place, how = rng.randrange(len(raw)), rng.randrange(4)
        if how == 0:
            raw[place] = rng.randrange(256)
        elif how == 1:
            del raw[place + 1 :]
        elif how == 2:  # one of four ways
            raw[place:place] = raw[place:]
        else:
            raw[place:place] = rng.randbytes(3)
    return bytes(raw)


def _odd_header(rng: random.Random) -> bytes:
    """One header of a kind that nobody expects."""
    whole = _whole(rng)
    name = rng.choice(("id", "task", "eta", "expires", "ignore_result", names.PAYLOAD_HEADER, "compression", "retries"))
    known = IDS if name == "id" else TIMES if name in {"eta", "expires"} else malformed.NASTY
    whole["headers"][name] = rng.choice(known)
    return _written(whole)


def _odd_body(rng: random.Random) -> bytes:
    """A body that isn't one, or one of anything."""
    whole = _whole(rng, malformed.value(rng))
    if rng.randrange(2):
        whole["body"] = rng.choice(BODIES)
    elif rng.randrange(2):
        whole["content-type"] = rng.choice(("application/x-python-serialize", "", None, 7))
    return _written(whole)


def _odd_canvas(rng: random.Random) -> bytes:
    """A job that is followed by what can't be."""
    whole = _whole(rng, canvas=rng.choice(CANVASES))
    whole["headers"] |= rng.choice(GROUPS)
    return _written(whole)


def _spoilt(rng: random.Random) -> bytes:
    """A message with something replaced, removed, wrapped or added anywhere in it."""
    whole = _whole(rng)
    malformed.spoil(rng, whole, rng.randint(1, 3))
    return _written(whole)


def _delivered(rng: random.Random) -> bytes:
    """What looks as if it had been delivered before."""
    inner = _written(_whole(rng)) if rng.randrange(2) else _noise(rng)
    return names.DELIVERY_MARK + rng.choice(COUNTS) + rng.choice((names.DELIVERY_END, b"")) + inner
