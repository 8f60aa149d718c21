"""All rows of the matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipemill_worker.pipelines.rules import TASK_RULES
from tests.tasks import jobs, models
from tests.tasks.rows import Row

#: Packages that transformers wants for a task, by task or by row.
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "any-to-any.llava": ("torchvision",),
    "mask-generation": ("torchvision",),
    "table-question-answering": ("pandas",),
    "video-classification": ("av",),
}


def _row(key: str) -> Row:
    task = key.partition(".")[0]
    return Row(
        key=key,
        task=task,
        build=models.BUILDERS[key],
        jobs=jobs.JOBS[key],
        needs=_NEEDS.get(key, _NEEDS.get(task, ())),
        grey_levels=1 if task == "depth-estimation" else 0,
    )


#: Every row, by its key, which is ``task.architecture``.
ROWS: Final[Mapping[str, Row]] = {key: _row(key) for key in models.BUILDERS}

#: Rows whose model allows less sharing than the table in the docs says of its task: without a token to pad with, a
#: classifier may not share, and the others share by equal lengths.
_LESS: Final = {"text-classification.gpt2": "solo", "feature-extraction.gpt2": "exact"}
#: Rows whose model's encoder needs no padding.
_PACKED: Final = {
    "feature-extraction.bert",
    "question-answering.bert",
    "rerank.bert",
    "sentence-embedding.bert",
    "text-classification.bert",
    "token-classification.bert",
    "zero-shot-classification.bert",
}
#: How each row's items share passes.
SHARING: Final[Mapping[str, str]] = {
    key: "packed" if key in _PACKED else _LESS.get(key, TASK_RULES[row.task].sharing.value) for key, row in ROWS.items()
}
#: Rows whose items run alone: of tasks that don't share, and of one more, which writes its answers.
ALONE: Final = {key for key, sharing in SHARING.items() if sharing == "solo"} | {"document-question-answering.donut"}
