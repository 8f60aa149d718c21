"""The queues that are attacked, what they take, and what a hostile job and its end are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipemill.errors import InvalidInput, JobError
from tests.e2e.hostile import files

#: Stand in the table for what a test knows when it runs: a file that nobody may read, and a server that nobody may ask.
SECRET: Final = "@secret@"  # noqa: S105  # a placeholder
SERVER: Final = "@server@"
#: A word that must not come back, in no error and no log.
MARK: Final = "quagga"

#: Queue → the row of the matrix whose model serves it.
QUEUES: Final[Mapping[str, str]] = {
    "text": "text-classification.bert",
    "zero-shot": "zero-shot-classification.bert",
    "image": "image-classification.vit",
    "zero-shot-image": "zero-shot-image-classification.clip",
    "speech": "automatic-speech-recognition.wav2vec2-layer",
    "whisper": "automatic-speech-recognition.whisper",
    "video": "video-classification.videomae",
    "chat": "image-text-to-text.llava",
    "document": "document-question-answering.layoutlm",
    "table": "table-question-answering.tapas",
    "decision": "decision.llama",
    "question": "question-answering.bert",
    "rerank": "rerank.bert",
    "fetching": "image-classification.vit",
}
#: Queues whose models come with the package.
BUILTIN: Final[Mapping[str, str]] = {"sentiment": "text-classification", "generator": "text-generation"}

#: What the one queue that fetches may fetch from.
_HOSTS: Final = ", urls: {hosts: [127.0.0.1, images.example.org]}"
#: As the worker is given it; the models lie beside it.
CATALOGUE: Final = "\n".join(
    [
        "worker: {lease_seconds: 10, torch_threads: 1}",
        "queues:",
        *(f'  {name}: {{task: {task}, model: "builtin:{name}", device: cpu}}' for name, task in BUILTIN.items()),
        *(
            f"  {name}: {{task: {row.partition('.')[0]}, model: ./{row}, device: cpu"
            f"{_HOSTS if name == 'fetching' else ''}}}"
            for name, row in QUEUES.items()
        ),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job and its end."""

    queue: str
    inputs: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    error: type[JobError] = InvalidInput
    #: A pattern that is found in the error's text.
    says: str
    #: Written by the test itself: Celery would repeat the inputs in the message's headers.
    raw: bool = False


LABELS: Final = {"candidate_labels": ["river", "stone"]}
#: What each queue's jobs need besides.
NEEDED: Final[Mapping[str, Mapping[str, Any]]] = {"zero-shot": LABELS, "zero-shot-image": LABELS}

IMAGE: Final = {"$image": files.base64(files.image("PNG"))}
QUESTION: Final = {"a": {"type": "noul", "instructions": "is this about the river?"}}
#: A good input of each queue but for those of images and sounds.
GOOD: Final[Mapping[str, Any]] = {
    "sentiment": "river",
    "text": "river",
    "generator": "river",
    "zero-shot": "river",
    "chat": "river",
    "table": {"table": {"river": ["1", "2"]}, "query": "what is the river?"},
    "decision": {"state": "river", "questions": QUESTION},
    "question": {"question": "what is it?", "context": "it is a river"},
    "rerank": {"query": "river", "documents": ["a river", "a stone"]},
}
