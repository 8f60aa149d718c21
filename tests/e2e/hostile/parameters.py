"""Hostile parameters: code, bombs, flags, the operator's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipemill.errors import InvalidParameter, MalformedJob
from tests.e2e.hostile.queues import BUILTIN, GOOD, IMAGE, MARK, NEEDED, QUEUES, SECRET, Case
from tests.malformed import nest


def _of_anyone() -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Parameters that no queue takes."""
    yield "code", {"trust_remote_code": True}, "trust_remote_code is never accepted from a job: it runs code"
    yield "custom code", {"custom_generate": SECRET}, "custom_generate is never accepted from a job: it runs code"
    yield "batches", {"batch_size": 10**9}, "batch_size is never accepted from a job: the worker forms"
    yield "flags", {"tesseract_config": f"--user-words {SECRET}"}, "it becomes command-line flags"
    yield "configuration", {"generation_config": {"max_new_tokens": 1}}, "generation_config is never accepted"
    yield "unknown", {f"{MARK}_" * 500: 1}, "is not a parameter of"
    yield "many unknown", {f"unknown_{number}": 1 for number in range(500)}, "and [0-9]+ more"


#: What no task takes among its generation settings.
_NESTED: Final[Mapping[str, Mapping[str, Any]]] = {
    "custom code": {"custom_generate": "/"},
    "code": {"trust_remote_code": True},
}
#: What no generator takes, and what it says.
_WRITING: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "seed below": ({"seed": -1}, "seed: -1 is less than 0"),
    "seed above": ({"seed": 2**63}, "seed: .* is (more than|not a whole number)"),
    "seed of words": ({"seed": "1"}, "is not a whole number"),
    "for ever": ({"max_new_tokens": 10**9}, "is more than 4096"),
    "beams": ({"num_beams": 10**6}, "is more than 16"),
    "beams of beams": ({"num_beams": 16, "num_return_sequences": 16}, "is more than 64"),
    "ice": ({"do_sample": True, "temperature": 5e-324}, "is less than 0.01"),
    "nothing left": ({"forced_eos_token_id": 5, "suppress_tokens": [5]}, "a token that is never written"),
    "deep": ({"stop_sequence": nest("a", 300)}, "stop_sequence"),
    "endless stop": ({"stop_sequence": MARK * 50_000}, "more than 200 characters"),
    "endless prefix": ({"prefix": MARK * 50_000}, "more than 10000 characters"),
    "template": ({"chat_template": "{% for x in range(10**9) %}{% endfor %}"}, "it is a program"),
}


def cases() -> Iterator[tuple[str, Case]]:
    """All of them, with their names."""

    def refused(queue: str, name: str, given: Mapping[str, Any], says: str) -> tuple[str, Case]:
        asked = {**NEEDED.get(queue, {}), **given}
        inputs = GOOD.get(queue, IMAGE)
        case = Case(queue=queue, inputs=inputs, parameters=asked, error=InvalidParameter, says=says)
        return f"{queue}: parameters: {name}", case

    for queue in (*BUILTIN, *QUEUES):
        for name, given, says in _of_anyone():
            yield refused(queue, name, given, says)
    for queue in ("chat", "whisper"):
        for name, given in _NESTED.items():
            yield refused(
                queue, f"nested {name}", {"generate_kwargs": given}, "never accepted from a job: it runs code"
            )
    for name, (given, says) in _WRITING.items():
        yield refused("generator", name, given, says)
    templates = ("{:>300000000}", "{0.__class__}", "{}{}", "{!r:>99999999}", "no place", "{" * 100)
    for number, template in enumerate(templates):
        for queue in ("zero-shot", "zero-shot-image"):
            yield refused(queue, f"template {number}", {"hypothesis_template": template}, "not exactly one {}")
    yield refused(
        "zero-shot", "long template", {"hypothesis_template": f"{{}} {MARK * 100}"}, "more than 300 characters"
    )
    yield refused("zero-shot", "labels", {"candidate_labels": ["river"] * 10_000}, "10000 labels")
    yield refused("zero-shot-image", "label", {"candidate_labels": [MARK * 20_000]}, "empty or too long")
    yield refused("zero-shot-image", "no labels", {"candidate_labels": []}, "0 labels")
    yield refused("speech", "crumbs", {"chunk_length_s": 1e-9}, "less than a second")
    yield refused("speech", "stride", {"chunk_length_s": 1, "stride_length_s": 1}, "leave a tenth of the chunk free")
    yield refused("video", "frames", {"num_frames": 10**9}, "num_frames")
    yield refused("question", "stride", {"max_seq_len": 10, "doc_stride": 10}, "not less than max_seq_len")
    nan = Case(
        queue="generator", inputs="river", parameters={"temperature": math.nan}, error=MalformedJob, says="must be JSON"
    )
    yield "generator: parameters: NaN", nan
