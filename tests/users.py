"""Users of a broker who may do what their role needs, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

import redis

from pipemill.store.acl import Role, rules

#: The password of them all, with what has a meaning in URLs.
PASSWORD: Final = "p/a@s:s#w%rd"  # noqa: S105  # of servers that live as long as a test


def url_as(url: str, role: Role) -> str:
    """The URL with which a role's user signs in."""
    return url.replace("://", f"://{role}:{quote(PASSWORD, safe='')}@")


@contextmanager
def users(
    url: str, *queues: str, cancels: bool = True, celery: bool = False, letters: bool = False
) -> Iterator[redis.Redis]:
    """Make a user for each role, named like it; the block is given a client that may do anything."""
    with redis.Redis.from_url(url) as admin:
        for role in Role:
            given = rules(role, queues, cancels=cancels, celery=celery, letters=letters)
            admin.execute_command("ACL", "SETUSER", role, *given, f">{PASSWORD}")
        admin.acl_log_reset()
        try:
            yield admin
        finally:
            admin.acl_deluser(*Role)


def denied(admin: redis.Redis) -> set[str]:
    """What users were refused since they were made; what clients only try to tell of themselves isn't counted."""
    return {
        f"{entry['username']}: {entry['context']} {entry['object']}"
        for entry in admin.acl_log()
        if not str(entry["object"]).startswith("client|")
    }
