"""Signatures of jobs: what is signed, what is refused, where keys come from."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipemill.errors import ConfigurationError, SignatureRefused
from pipemill.protocol import decode_message, encode_arguments, encode_message, names
from pipemill.protocol.signing import SigningKey, check_payload, key_id, sign_message
from pipemill.signing import Keyring, Signer, Verifier, keyring_of, parse_keys
from pipemill.store.base import Submission

QUEUE = "words"
SECRET = secrets.token_urlsafe(32)
ANOTHER = secrets.token_urlsafe(32)
NOW = 1_800_000_000.0
KEY = SigningKey(id="acme-1", secret=SECRET.encode())
BOUND = SigningKey(id="acme-2", secret=SECRET.encode(), tenant="acme")


def message(**options: Any) -> bytes:
    """A job as a client sends it."""
    return encode_message("an-id", QUEUE, encode_arguments("text", {"top_k": 2}), **options)


def verifier(text: str = f"acme-1 {SECRET}", *, required: bool = True) -> Verifier:
    """What a worker that knows these keys asks for."""
    return Verifier(keyring=Keyring(text=text), required=required, max_age_seconds=60)


def seen(raw: bytes, checking: Verifier | None = None, queue: str = QUEUE, now: float = NOW) -> str | None:
    """Read a job as a worker does; the key that it is signed with."""
    check = checking or verifier()
    return decode_message(raw, queue, lambda headers, body: check.check(headers, queue, body, now)).signed_by


def changed(raw: bytes, **headers: Any) -> bytes:
    """The same message with other headers."""
    document = orjson.loads(raw)
    document["headers"].update(headers)
    return orjson.dumps(document)


def test_what_is_signed_is_accepted() -> None:
    """A signed job is read as any other, and its key is told."""
    assert seen(sign_message(message(), QUEUE, KEY, NOW)) == "acme-1"
    assert seen(sign_message(message(eta=NOW, expires=NOW + 9, priority=3), QUEUE, KEY, NOW)) == "acme-1"


def test_signing_again_replaces_the_signature() -> None:
    """A job whose queue was full is signed at each try."""
    once = sign_message(message(), QUEUE, KEY, NOW - 1000)
    assert seen(sign_message(once, QUEUE, KEY, NOW)) == "acme-1"


@pytest.mark.parametrize(
    "headers",
    [
        {"id": "another-id"},
        {"eta": None},
        {"expires": "2100-01-01T00:00:00+00:00"},
        {"ignore_result": True},
        {"group": "a-group"},
        {"group_index": 1},
        {"pipemill_tenant": "another"},
        {"pipemill_payload": True},
        {"pipemill_anything": 1},
        {"pipemill_stream": True},
        {"pipemill_signed_at": int(NOW) + 1},
    ],
)
def test_what_was_changed_is_refused(headers: dict[str, Any]) -> None:
    """Whatever determines a job is signed, headers of ours that are still to come included."""
    signed = sign_message(message(eta=NOW - 5), QUEUE, KEY, NOW)
    with pytest.raises(SignatureRefused, match="isn't what was signed"):
        seen(changed(signed, **headers))


def test_another_body_is_refused() -> None:
    """Inputs, parameters and what follows the job are signed as the bytes that they are."""
    document = orjson.loads(sign_message(message(), QUEUE, KEY, NOW))
    document["body"] = orjson.loads(encode_message("an-id", QUEUE, encode_arguments("text", {"top_k": 3})))["body"]
    with pytest.raises(SignatureRefused, match="isn't what was signed"):
        seen(orjson.dumps(document))


def test_another_queue_is_refused() -> None:
    """A job that was signed for one queue can't be moved to another."""
    with pytest.raises(SignatureRefused, match="isn't what was signed"):
        seen(sign_message(message(), QUEUE, KEY, NOW), queue="others")


def test_another_secret_and_an_unknown_key_are_refused() -> None:
    """A key's id without its secret is worth nothing."""
    with pytest.raises(SignatureRefused, match="secret is another"):
        seen(sign_message(message(), QUEUE, SigningKey(id="acme-1", secret=ANOTHER.encode()), NOW))
    with pytest.raises(SignatureRefused, match="knows the key 'stranger'"):
        seen(sign_message(message(), QUEUE, SigningKey(id="stranger", secret=SECRET.encode()), NOW))


@pytest.mark.parametrize("signature", ["", "1:acme-1", "2:acme-1:00", "1::00", 7, None, ["1:acme-1:00"], "1:acme-1:é"])
def test_a_strange_signature_is_refused(signature: Any) -> None:
    """It is no signature, whatever it is; also where none is asked for."""
    with pytest.raises(SignatureRefused):
        seen(changed(message(), pipemill_signature=signature), verifier(required=False))


@pytest.mark.parametrize("value", [[[]] * 3, {"a": {"b": 1}}, 1e308, 2**60, "\x00"])
def test_strange_headers_only_fail_their_job(value: Any) -> None:
    """Whatever a forged header holds, reading it ends in a refusal."""
    with pytest.raises(SignatureRefused):
        seen(changed(message(), pipemill_signature="1:acme-1:00", pipemill_strange=value))


def test_a_header_nested_without_end_only_fails_its_job() -> None:
    """What JSON can hold and can't be written again is refused like any forged header."""
    deep = b"[" * 500 + b"]" * 500
    raw = changed(message(), pipemill_signature="1:acme-1:00", pipemill_deep="HERE").replace(b'"HERE"', deep)
    with pytest.raises(SignatureRefused):
        seen(raw)


def test_unsigned_jobs_are_refused_where_signatures_are_required() -> None:
    """The error says what to give the client; where they aren't required, unsigned jobs are taken."""
    with pytest.raises(SignatureRefused, match="takes signed jobs only: give the client a key"):
        seen(message())
    assert seen(message(), verifier(required=False)) is None


def test_an_old_signature_is_refused() -> None:
    """Old messages can't be sent again for ever."""
    signed = sign_message(message(), QUEUE, KEY, NOW)
    assert seen(signed, now=NOW + 60) == "acme-1"
    with pytest.raises(SignatureRefused, match="more than 60 s ago"):
        seen(signed, now=NOW + 61)


def test_a_tenants_key_signs_its_jobs_only() -> None:
    """Its jobs are marked as the tenant's; who has the key can't sign for another, nor for nobody."""
    keys = f"acme-1 {SECRET}\nacme-2 {SECRET} acme"
    signed = sign_message(message(), QUEUE, BOUND, NOW)
    assert orjson.loads(signed)["headers"][names.TENANT_HEADER] == "acme"
    assert seen(signed, verifier(keys)) == "acme-2"
    with pytest.raises(SignatureRefused, match="of the tenant 'acme' only"):
        sign_message(changed(message(), pipemill_tenant="globex"), QUEUE, BOUND, NOW)
    loose = SigningKey(id="acme-2", secret=SECRET.encode())
    for forged in (message(), changed(message(), pipemill_tenant="globex")):
        with pytest.raises(SignatureRefused, match="of the tenant 'acme' only"):
            seen(sign_message(forged, QUEUE, loose, NOW), verifier(keys))


def test_a_payload_sent_by_reference_is_signed_by_its_digest() -> None:
    """What lies beside the message can't be replaced, and can't be left out of the signature."""
    payload = encode_arguments("x" * 100, {})
    signed = sign_message(message(by_reference=True), QUEUE, KEY, NOW, payload)
    headers = decode_message(signed, QUEUE).headers
    assert seen(signed) == "acme-1"
    check_payload(headers, payload)
    with pytest.raises(SignatureRefused, match="aren't those that were signed"):
        check_payload(headers, payload + b" ")
    with pytest.raises(SignatureRefused, match="aren't those that were signed"):
        check_payload({**headers, names.DIGEST_HEADER: "é"}, payload)
    with pytest.raises(SignatureRefused, match="by reference without being signed"):
        seen(sign_message(message(by_reference=True), QUEUE, KEY, NOW))


def test_the_key_of_a_job_is_told_without_checking() -> None:
    """An unsigned job has none."""
    assert key_id({}) is None
    assert key_id(orjson.loads(sign_message(message(), QUEUE, KEY, NOW))["headers"]) == "acme-1"


def test_keys_are_read_from_lines() -> None:
    """Comments and empty lines are left out; the first key signs; no representation shows a secret."""
    keys = parse_keys(f"# ours\n\nnew {SECRET}\nold {ANOTHER} acme\n", "here")
    assert list(keys) == ["new", "old"]
    assert [key.tenant for key in keys.values()] == [None, "acme"]
    assert SECRET not in repr(keys)
    assert SECRET not in repr(Signer(Keyring(text=f"new {SECRET}")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no signing key"),
        ("# nothing", "holds no signing key"),
        ("alone", "line 1: a key is <id> <secret>"),
        (f"a {SECRET} b c", "line 1: a key is <id> <secret>"),
        (f"a {SECRET}\nb short", "line 2: a secret has at least 32 bytes"),
        (f"{'a' * 81} {SECRET}", "at most 80 characters"),
        (f"a {SECRET}\na {ANOTHER}", "line 2: an id that stands there twice"),
    ],
    ids=["empty", "comment", "no secret", "two more words", "short secret", "long id", "id twice"],
)
def test_wrong_keys_are_told_without_their_secret(text: str, said: str) -> None:
    """The error names the line and says how to make a key."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        parse_keys(text, "here")
    assert SECRET not in str(caught.value)
    assert "token_urlsafe" in str(caught.value)


def test_keys_come_from_a_file_or_from_the_environment(tmp_path: Path) -> None:
    """A file that is named wins over the environment; two places there are a mistake; none is no key."""
    file = tmp_path / "keys"
    file.write_text(f"in-file {SECRET}", "utf-8")
    text, named = {names.KEYS_VARIABLE: f"in-text {SECRET}"}, {names.KEYS_FILE_VARIABLE: str(file)}
    found = [keyring_of(None, text), keyring_of(None, named), keyring_of(file, text | named)]
    assert [keyring.first().id for keyring in found if keyring] == ["in-text", "in-file", "in-file"]
    assert keyring_of(None, {}) is None
    with pytest.raises(ConfigurationError, match="unset one of them"):
        keyring_of(None, text | named)
    with pytest.raises(ConfigurationError, match="can't be read"):
        keyring_of(tmp_path / "absent", {})


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys are changed under running processes; a file that is being written doesn't stop them, and is told once."""
    file = tmp_path / "keys"
    file.write_text(f"old {SECRET}", "utf-8")
    keyring = Keyring(file=file)
    replace_file(file, f"new {ANOTHER}\nold {SECRET}")
    assert list(keyring.keys()) == ["new", "old"]
    with caplog.at_level(logging.WARNING, "pipemill.signing"):
        replace_file(file, "half a li")
        assert [list(keyring.keys()) for _ in range(2)] == [["new", "old"]] * 2
        file.unlink()
        assert list(keyring.keys()) == ["new", "old"]
    assert len(caplog.records) == 1
    replace_file(file, f"newest {SECRET}")
    assert keyring.first().id == "newest"


def replace_file(file: Path, text: str) -> None:
    """Put another file in its place, as secrets are changed."""
    other = file.with_suffix(".new")
    other.write_text(text, "utf-8")
    os.replace(other, file)  # noqa: PTH105  # what is meant is the system call


def test_a_signer_signs_what_a_client_sends() -> None:
    """Each submission keeps all but its message; a payload beside it is signed with it."""
    signer = Signer(Keyring(text=f"acme-1 {SECRET}"))
    payload = encode_arguments("x", {})
    sent = [
        Submission(job_id="an-id", list_index=1, message=message(), idempotency_key="once"),
        Submission(job_id="an-id", list_index=0, message=message(by_reference=True), payload=payload),
    ]
    signed = signer.sign(QUEUE, sent)
    assert [(job.list_index, job.idempotency_key, job.payload) for job in signed] == [
        (1, "once", None),
        (0, "", payload),
    ]
    checking = Verifier(keyring=signer.keyring, required=True, max_age_seconds=3600)
    now = decode_message(signed[0].message, QUEUE).headers[names.SIGNED_AT_HEADER]
    assert [seen(job.message, checking, now=now) for job in signed] == ["acme-1"] * 2


def test_a_key_of_another_tenant_is_a_mistake_of_the_client() -> None:
    """Its jobs would all be refused, so none is sent."""
    signer = Signer(Keyring(text=f"acme-2 {SECRET} acme"))
    foreign = Submission(job_id="an-id", list_index=0, message=changed(message(), pipemill_tenant="globex"))
    with pytest.raises(ConfigurationError, match="of the tenant 'acme' only"):
        signer.sign(QUEUE, [foreign])
