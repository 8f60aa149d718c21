"""The tasks are known to transformers."""

from __future__ import annotations

import logging

import pytest
from transformers.pipelines import PIPELINE_REGISTRY

from pipemill_worker.pipelines.own import OWN_PIPELINES, register
from tests.unit.pipelines.own.models import own_pipeline, writer


def test_transformers_builds_every_own_pipeline() -> None:
    """After registering, ``transformers.pipeline`` gives our class for each task, also for those it removed."""
    built = [writer(task) for task in ("summarization", "translation", "text2text-generation")]
    built += [own_pipeline(task) for task in ("question-answering", "sentence-embedding")]
    built.append(own_pipeline("rerank", num_labels=1))
    assert {pipe.task: type(pipe) for pipe in built} == {task: kind for task, (kind, _) in OWN_PIPELINES.items()}


def test_registering_again_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A second call leaves the registry as it is, without transformers' warning that it overwrites a task."""
    register()
    before = dict(PIPELINE_REGISTRY.supported_tasks)
    with caplog.at_level(logging.WARNING):
        register()
    assert before == PIPELINE_REGISTRY.supported_tasks
    assert all(PIPELINE_REGISTRY.supported_tasks[task]["impl"] is kind for task, (kind, _) in OWN_PIPELINES.items())
    assert not caplog.records
