"""The documentation, the shipped catalogues, and what importing them costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipemill.catalogue import (
    BatchSettings,
    Catalogue,
    LimitSettings,
    QueueSettings,
    WorkerSettings,
    find_mistakes,
    load_catalogue,
    reference,
)
from pipemill.catalogue.model import BlobSettings, UrlSettings
from pipemill.catalogue.retry import RetrySettings
from pipemill.parameters import PARAMETERS
from pipemill.parameters.generation import Generation

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/catalogue.md"


def python(*arguments: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


def test_page_holds_the_reference() -> None:
    """docs/catalogue.md holds exactly what the models say; `python -m pipemill.catalogue` prints it."""
    assert reference() in PAGE.read_text(encoding="utf-8")


def test_module_prints_the_reference() -> None:
    """`python -m pipemill.catalogue` prints the reference and nothing else."""
    assert python("-m", "pipemill.catalogue") == reference()


@pytest.mark.parametrize(
    "model",
    [
        Catalogue,
        WorkerSettings,
        BlobSettings,
        QueueSettings,
        BatchSettings,
        LimitSettings,
        RetrySettings,
        UrlSettings,
        Generation,
    ],
)
def test_every_field_is_described(model: type[BaseModel]) -> None:
    """Each field says what it means and stands in the reference."""
    for name, field in model.model_fields.items():
        assert field.description, name
        assert f"| `{name}` |" in reference()


@pytest.mark.parametrize("task", PARAMETERS)
def test_every_parameter_is_described(task: str) -> None:
    """Each parameter of a task stands in the task's part of the page, or in the settings that it points to."""
    part = reference().partition(f"### Parameters of `{task}`\n")[2].partition("\n### ")[0]
    shared = Generation.model_fields if "#generation-settings" in part else {}
    assert [name for name in PARAMETERS[task].model_fields if f"| `{name}`" not in part and name not in shared] == []
    assert ("None." in part) == (not PARAMETERS[task].model_fields)


def test_examples_of_the_page_are_right(tmp_path: Path) -> None:
    """Each catalogue that the page shows loads as it stands."""
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        file = tmp_path / "pipemill.yaml"
        file.write_text(example, encoding="utf-8")
        assert find_mistakes(file, environ={}) == []


def test_production_example_is_right() -> None:
    """The production example has no mistake, and each of its models is pinned to a whole commit hash."""
    catalogue = load_catalogue(ROOT / "config/production.yaml", environ={})
    assert all(re.fullmatch("[0-9a-f]{40}", queue.revision or "") for queue in catalogue.queues.values())


def test_demo_needs_nothing_from_outside() -> None:
    """The demo's catalogue, reached by its short path, has two builtin models on the CPU."""
    catalogue = load_catalogue(ROOT / "config/demo.yaml", environ={})
    assert {name: queue.model for name, queue in catalogue.queues.items()} == {
        "sentiment": "builtin:sentiment",
        "generator": "builtin:generator",
    }
    assert {queue.device for queue in catalogue.queues.values()} == {"cpu"}
    assert catalogue.queues["generator"].parameters == {"max_new_tokens": 40, "do_sample": False}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("pipemill", {"pydantic", "yaml", "celery", "torch", "transformers"}),
        ("pipemill.catalogue", {"celery", "torch", "transformers", "numpy"}),
    ],
)
def test_import_stays_light(module: str, absent: set[str]) -> None:
    """Importing the package loads no pydantic; importing the catalogue loads nothing of the worker's libraries."""
    loaded = set(python("-c", f"import sys, {module}; print(*sys.modules)").split())
    assert loaded & absent == set()
