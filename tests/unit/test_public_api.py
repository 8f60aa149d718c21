"""What `import pipemill` gives, and what it spares."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pipemill
from pipemill import errors

ROOT = Path(__file__).parents[2]
#: What only those need who use it: importing pipemill must not load it.
HEAVY = {
    "accelerate",
    "asyncio",
    "celery",
    "click",
    "fastapi",
    "kombu",
    "numpy",
    "pydantic",
    "redis",
    "rich",
    "torch",
    "transformers",
    "yaml",
}


def test_all_is_sorted_and_complete() -> None:
    """Every public name is listed, once and in order, and every listed name is there."""
    public = {name for name, value in vars(pipemill).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    assert pipemill.__all__ == sorted(public | {"__version__"})


def test_every_error_is_public() -> None:
    """Whoever catches an error finds it at the top."""
    raised = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert raised <= set(pipemill.__all__)


def test_public_things_have_docstrings() -> None:
    """`help()` answers for each public name."""
    silent = [name for name in pipemill.__all__ if name != "__version__" and not getattr(pipemill, name).__doc__]
    assert silent == []


def test_the_version_is_the_packages() -> None:
    """The constant is what pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert pipemill.__version__ == project["version"]


def test_importing_loads_nothing_heavy() -> None:
    """A web backend that imports pipemill pays for none of what it may never use."""
    script = "import sys, pipemill; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "pipemill" in loaded
    assert loaded & HEAVY == set()
