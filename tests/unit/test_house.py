"""The house rules that no linter holds."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]

#: What a web backend gets with `pip install pipemill`; a new name here is a decision, not a convenience.
BASE_DEPENDENCIES = {"click", "orjson", "pydantic", "pyyaml", "redis", "rich"}

#: What a pinned line of constraints.txt looks like: name, version, perhaps a marker.
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^;+\s]+)(;.+)?$")


def project() -> dict[str, Any]:
    """Read pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def compose() -> dict[str, Any]:
    """Read the compose file."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))
    return document


def pins() -> dict[str, Version]:
    """Read constraints.txt, which must hold nothing but comments and exact versions."""
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    matches = [PIN.match(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if match is None]
    return {canonicalize_name(match["name"]): Version(match["version"]) for match in matches if match}


def requirements() -> Iterator[Requirement]:
    """Every direct dependency, of the base install, of each extra and of the build."""
    document = project()
    for group in (
        document["project"]["dependencies"],
        *document["project"]["optional-dependencies"].values(),
        document["build-system"]["requires"],
    ):
        yield from map(Requirement, group)


def imported(path: Path) -> Iterator[str]:
    """Every module name that a source file imports, at the top or deeper."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines from its first statement to its last, without signature and docstring."""
    statements = function.body[ast.get_docstring(function) is not None :]
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def test_base_install_is_light() -> None:
    """A producer's install pulls the six light libraries and nothing else."""
    names = {canonicalize_name(Requirement(line).name) for line in project()["project"]["dependencies"]}
    assert names == BASE_DEPENDENCIES


def test_every_dependency_is_a_range() -> None:
    """Users get ranges: a lower bound for each dependency, and an exact version for none."""
    for requirement in requirements():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert ">=" in operators, requirement
        assert not operators & {"==", "==="}, requirement


def test_every_dependency_has_a_pin_in_its_range() -> None:
    """Development, CI and the image install a version that pyproject.toml allows, the same everywhere."""
    pinned = pins()
    for requirement in requirements():
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt"])
def test_repository_has(name: str) -> None:
    """What a visitor looks for first is there, and isn't empty."""
    assert (ROOT / name).stat().st_size > 0


def test_package_page_is_the_readme() -> None:
    """Whoever finds the package in an index reads the README there."""
    assert project()["project"]["readme"] == "README.md"


def test_changelog_has_the_current_version() -> None:
    """The version that pyproject.toml names has its section in the changelog."""
    assert f"## [{project()['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_linter_exception_in_the_settings_has_its_reason() -> None:
    """Each rule that ruff ignores says why on its own line."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lint = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.flake8-annotations]")]
    rules = [line for line in lint.splitlines() if re.match(r'\s+"[A-Z]+[0-9]+"', line)]
    settings = project()["tool"]["ruff"]["lint"]
    ignored = [*settings["ignore"], *(rule for group in settings["per-file-ignores"].values() for rule in group)]
    assert len(rules) == len(ignored)
    assert [line for line in rules if not re.search(r'",  # \S', line)] == []


@pytest.mark.parametrize("folder", ["producer", "worker", "tests", "benchmarks", "examples"])
def test_every_linter_exception_in_the_code_has_its_reason(folder: str) -> None:
    """Each `noqa` and `type: ignore` names its rule and says why on its own line."""
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"#\s*(noqa|type:\s*ignore)\b(?!(: [A-Z0-9, ]+|\[[a-z, -]+\]) +(# |- |\()\S)", line)
    ]
    assert bare == []


@pytest.mark.parametrize("folder", ["producer", "worker"])
def test_modules_are_short(folder: str) -> None:
    """No module has more than 400 lines."""
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > 400} == {}


@pytest.mark.parametrize("folder", ["producer", "worker"])
def test_functions_are_short(folder: str) -> None:
    """No function's body has more than 50 lines, its docstring not counted."""
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > 50
    ]
    assert long == []


def test_policy_imports_only_the_standard_library() -> None:
    """Batching policy is pure: it imports the standard library and itself."""
    files = sorted((ROOT / "worker/pipemill_worker").glob("policy*/**/*.py"))
    files += sorted((ROOT / "worker/pipemill_worker").glob("policy.py"))
    assert files
    foreign = {
        f"{path.name}: {module}"
        for path in files
        for module in imported(path)
        if module.split(".")[0] not in sys.stdlib_module_names and not module.startswith("pipemill_worker.policy")
    }
    assert foreign == set()


def test_every_test_says_what_must_hold() -> None:
    """Each test function has a docstring of one sentence or more."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not (ast.get_docstring(node) or "").rstrip().endswith(".")
    ]
    assert silent == []


@pytest.mark.parametrize("path", [*sorted((ROOT / "scripts").iterdir()), ROOT / ".ci/run"], ids=lambda path: path.name)
def test_scripts_stop_at_the_first_error(path: Path) -> None:
    """Each script is executable, and fails when a command or a variable in it does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert path.stat().st_mode & 0o111
    assert lines[0] in {"#!/bin/sh", "#!/usr/bin/env bash"}
    assert "set -eu" in lines


def test_compose_keeps_accepted_jobs() -> None:
    """The broker writes what it accepts to disk, never evicts it, and is reached from this machine only."""
    valkey = compose()["services"]["valkey"]
    command = " ".join(valkey["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert all(port.startswith("127.0.0.1:") for port in valkey["ports"])
    assert valkey["healthcheck"]["test"]


@pytest.mark.parametrize("name", ["valkey", "worker"])
def test_compose_gives_no_needless_rights(name: str) -> None:
    """No container can write its own file system, gain rights, or take all memory."""
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]


def test_compose_lets_a_worker_drain() -> None:
    """Docker's grace period is longer than the drain of the catalogue that the worker service mounts."""
    worker = compose()["services"]["worker"]
    grace = re.fullmatch(r"(\d+)s", worker["stop_grace_period"])
    source = ROOT / "docker" / worker["volumes"][0].split(":")[0]
    assert grace
    assert int(grace[1]) > yaml.safe_load(source.read_text(encoding="utf-8"))["worker"]["drain_seconds"]


def test_compose_runs_a_command_that_exists() -> None:
    """The worker service and the image start a command of the command line, on a catalogue that is there."""
    worker = compose()["services"]["worker"]
    image = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    commands = {point.name for point in entry_points(group="pipemill.commands")}
    assert worker["command"][0] in commands
    assert f'CMD ["{worker["command"][0]}"]' in image
    source, target, mode = worker["volumes"][0].split(":")
    assert (ROOT / "docker" / source).resolve().is_file()
    assert f"PIPEMILL_CATALOGUE={target}" in image
    assert mode == "ro"
