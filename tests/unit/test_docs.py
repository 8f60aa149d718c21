"""What the documents say is run, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipemill import testing
from pipemill.catalogue import find_mistakes
from pipemill.cli import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "docker/README.md"])


def blocks(language: str) -> list[str]:
    """The README's code of a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document is a file or folder."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def test_the_catalogue_in_the_readme_is_right(tmp_path: Path) -> None:
    """It passes the check that the README recommends."""
    (catalogue,) = blocks("yaml")
    file = tmp_path / "pipemill.yaml"
    file.write_text(catalogue, "utf-8")
    assert find_mistakes(file, environ={}, check_files=True) == []


def test_the_code_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It submits, asks, waits and maps as it says."""
    (code,) = [block for block in blocks("python") if "Client" in block]
    broker = testing.MemoryBroker()
    monkeypatch.setattr("pipemill.Client", lambda _: testing.client(broker))
    monkeypatch.chdir(tmp_path)
    Path("reviews.txt").write_text("Good.\nBad.\n", "utf-8")
    with testing.answering(broker, "sentiment", lambda _text, **_parameters: [{"label": "POSITIVE", "score": 1.0}]):
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102  # our own


def test_the_rules_in_the_documents_are_what_the_command_writes() -> None:
    """Who copies them gets today's."""
    shown = re.findall(r"^\$ pipemill (acl .*)\n(ACL .*)$", (ROOT / "docs/cli.md").read_text("utf-8"), re.MULTILINE)
    assert shown
    for arguments, rules in shown:
        assert CliRunner().invoke(main, arguments.split(), catch_exceptions=False).output.strip() == rules


def test_the_commands_in_the_documents_exist() -> None:
    """Every `pipemill NAME` that a document shows in code is a command."""
    shown: set[str] = set()
    for document in DOCUMENTS:
        code = "\n".join(re.findall(r"```sh\n(.*?)```", document.read_text("utf-8"), re.DOTALL))
        shown |= set(re.findall(r"^pipemill ([a-z]+)", code, re.MULTILINE))
    assert shown
    assert shown <= set(main.list_commands(click.Context(main)))
