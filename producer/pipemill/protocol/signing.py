"""Signatures of jobs: HMAC-SHA256 over what names and determines a job. Pure.

Signed are the queue, the id, the task's name, eta and expiry, whether the result is ignored, the place in a group,
every header of ours, and the very bytes of the body: inputs, parameters, and what follows the job. A payload sent by
reference is signed by its digest, which is a header of ours. Not signed: priority and what Celery only passes on.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from pipemill.errors import SignatureRefused
from pipemill.protocol.names import (
    DIGEST_HEADER,
    HEADER_PREFIX,
    PAYLOAD_HEADER,
    SIGNATURE_HEADER,
    SIGNED_AT_HEADER,
    TENANT_HEADER,
)

#: The form of signatures that is written and read.
VERSION: Final = "1"
#: Celery's headers that determine a job; one that is absent counts as null.
SIGNED_HEADERS: Final = ("id", "task", "eta", "expires", "ignore_result", "group", "group_index")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A secret, its name, and whose jobs it is good for."""

    id: str
    secret: bytes = field(repr=False)
    #: The only tenant whose jobs it signs; None for any job.
    tenant: str | None = None


def sign_headers(  # noqa: PLR0913, PLR0917  # each is a part of what is signed
    headers: Mapping[str, Any], queue: str, body: bytes, key: SigningKey, now: float, payload: bytes | None = None
) -> dict[str, Any]:
    """Headers to add to a job's own; ``now`` in seconds since the epoch.

    Raises
    ------
    SignatureRefused
        When the key is good for another tenant than the job's.

    """
    more: dict[str, Any] = {SIGNED_AT_HEADER: int(now)}
    if key.tenant is not None:
        more[TENANT_HEADER] = headers.get(TENANT_HEADER, key.tenant)
        _check_tenant({**headers, **more}, key)
    if payload is not None:
        more[DIGEST_HEADER] = hashlib.sha256(payload).hexdigest()
    code = _code({**headers, **more}, queue, body, key)
    return {**more, SIGNATURE_HEADER: f"{VERSION}:{key.id}:{code}"}


def sign_message(raw: bytes, queue: str, key: SigningKey, now: float, payload: bytes | None = None) -> bytes:
    """Sign a message as kombu stores it, with a body in base64; a signature that it has is replaced."""
    message = orjson.loads(raw)
    headers = message["headers"]
    headers.update(sign_headers(headers, queue, b64decode(message["body"]), key, now, payload))
    return orjson.dumps(message)


def key_id(headers: Mapping[str, Any]) -> str | None:
    """The id of the key that a job says it is signed with; None if it isn't signed.

    Raises
    ------
    SignatureRefused
        When it has something else where its signature should be.

    """
    if SIGNATURE_HEADER not in headers:
        return None
    return _parse(headers[SIGNATURE_HEADER])[0]


def check_signature(headers: Mapping[str, Any], queue: str, body: bytes, key: SigningKey | None) -> None:
    """See that a job is what was signed; ``key`` is the one that ``key_id`` named, None if nobody knows it.

    Raises
    ------
    SignatureRefused
        When it isn't.

    """
    name, code = _parse(headers[SIGNATURE_HEADER])
    if key is None:
        raise SignatureRefused(f"no worker of queue {queue!r} knows the key {name!r}: add it to the workers' keys")
    if not hmac.compare_digest(_code(headers, queue, body, key), code):
        raise SignatureRefused(
            f"the job isn't what was signed with the key {name!r}, or the secret is another: sign it for this very "
            "queue, after its last change"
        )
    _check_tenant(headers, key)
    if headers.get(PAYLOAD_HEADER) and not isinstance(headers.get(DIGEST_HEADER), str):
        raise SignatureRefused("the inputs were sent by reference without being signed: send them with their digest")


def check_payload(headers: Mapping[str, Any], payload: bytes) -> None:
    """See that a payload sent by reference is the one that was signed, if its job is signed.

    Raises
    ------
    SignatureRefused
        When it isn't.

    """
    digest = headers.get(DIGEST_HEADER)
    if digest is None:
        return
    found = hashlib.sha256(payload).hexdigest()
    if not hmac.compare_digest(found.encode(), str(digest).encode()):
        raise SignatureRefused("the inputs sent by reference aren't those that were signed: submit the job again")


def _check_tenant(headers: Mapping[str, Any], key: SigningKey) -> None:
    tenant = headers.get(TENANT_HEADER)
    if key.tenant is not None and tenant != key.tenant:
        raise SignatureRefused(
            f"the key {key.id!r} signs jobs of the tenant {key.tenant!r} only, and this one is of another: "
            "use that tenant's key"
        )


def _parse(signature: Any) -> tuple[str, str]:
    """The key's id and the code of a signature."""
    version, _, rest = signature.partition(":") if isinstance(signature, str) else ("", "", "")
    name, _, code = rest.rpartition(":")
    if version != VERSION or not name or not code.isascii():
        text = f"the header {SIGNATURE_HEADER} isn't of the form {VERSION}:<key id>:<hex>: sign with pipemill.signing"
        raise SignatureRefused(text)
    return name[:80], code


def _code(headers: Mapping[str, Any], queue: str, body: bytes, key: SigningKey) -> str:
    ours = {
        name: value for name, value in headers.items() if name.startswith(HEADER_PREFIX) and name != SIGNATURE_HEADER
    }
    told = [VERSION, queue, [headers.get(name) for name in SIGNED_HEADERS], ours, hashlib.sha256(body).hexdigest()]
    try:
        written = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise SignatureRefused("the job's headers aren't what a signature is made of: plain JSON") from error
    return hmac.new(key.secret, written, hashlib.sha256).hexdigest()
