"""Celery's connections sign in as ours do.

No password stands in Celery's settings, where ``inspect conf`` would have to hide it, and a password's file is read for
each new connection of Celery's, too. Celery and kombu take the name of what gives credentials, and call it without
arguments: so each address has a name here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from pipemill.address import Address
from pipemill.store.connection import Credentials

_NAME: Final = "of_address_"
_ADDRESSES: Final[list[Address]] = []


def credentials_name(address: Address) -> str:
    """Name what gives an address's credentials, in the form ``module:attribute``."""
    if address not in _ADDRESSES:
        _ADDRESSES.append(address)
    return f"{__name__}:{_NAME}{_ADDRESSES.index(address)}"


def __getattr__(name: str) -> Callable[[], Credentials]:
    """Find what was named."""
    number = name.removeprefix(_NAME)
    if number == name or not number.isdigit() or int(number) >= len(_ADDRESSES):
        text = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(text)
    return partial(Credentials, _ADDRESSES[int(number)])
