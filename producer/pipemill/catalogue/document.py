"""Reads a YAML file into plain data, keeping the line of every key. YAML's silences are mistakes here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from pipemill.catalogue.mistakes import Mistake
from pipemill.validation import render_path, shown

_STRING: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_DATE: Final = "tag:yaml.org,2002:timestamp"

#: What to do about a file that holds nothing of use.
_START: Final = "start from the example in the documentation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A YAML file as read; without data when it couldn't be."""

    #: The file's mapping; empty when there are mistakes of reading.
    data: dict[str, Any]
    #: Whether ``data`` is what the file says.
    readable: bool
    #: What is wrong with the file as YAML.
    mistakes: list[Mistake]
    #: The tree that knows the lines.
    root: yaml.Node | None = None

    def line_of(self, keys: Sequence[str | int]) -> int | None:
        """The line of a key, or of the nearest one above it; counted from 1."""
        node, line = self.root, None
        for key in keys:
            below = _below(node, key)
            if below is None:
                break
            line, node = below
        return line


class _Loader(yaml.SafeLoader):
    """Safe loader that knows no dates."""


# A date is no JSON; YAML's would be refused with words about dates where a string was meant.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_document(file: Path) -> Document:
    """Read a file; whatever is wrong with it as a file or as YAML is told, never raised."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return _unreadable(f"can't be read ({reason})", "name a file that exists and is readable")
    except UnicodeDecodeError as error:
        return _unreadable(f"not UTF-8 text (byte {error.start})", "save it as UTF-8")
    return parse_document(text)


def parse_document(text: str) -> Document:
    """Parse YAML text; whatever is wrong with it is told, never raised."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        mistakes = _mend_keys(root)
        data = loader.construct_document(root) if root is not None else None
    except yaml.YAMLError as error:
        return _not_yaml(error)
    except RecursionError:
        return _unreadable("nested too deeply", "write it flatter")
    except ValueError:
        return _unreadable("a number in it has too many digits", "write a shorter one")
    if data is None:
        return _unreadable("the file is empty", _START)
    if not isinstance(data, dict):
        return _unreadable(f"the file holds {shown(data)}, not a mapping", _START)
    return Document(data=data, readable=True, mistakes=mistakes, root=root)


def _unreadable(problem: str, mend: str, line: int | None = None) -> Document:
    return Document(data={}, readable=False, mistakes=[Mistake(path="", problem=problem, mend=mend, line=line)])


def _not_yaml(error: yaml.YAMLError) -> Document:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return _unreadable(
        f"not YAML{place} ({reason})",
        "mend the line; colons need a space after them, indentation is spaces only",
        mark.line + 1 if mark else None,
    )


def _mend_keys(root: yaml.Node | None) -> list[Mistake]:
    """Tell of duplicate keys and of keys that aren't strings; make the latter strings, so that reading goes on."""
    mistakes: list[Mistake] = []
    seen: set[int] = set()
    waiting: list[tuple[yaml.Node | None, tuple[str | int, ...]]] = [(root, ())]
    while waiting:
        node, keys = waiting.pop()
        if id(node) in seen:
            continue  # an alias, or even a circle of them
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend((below, (*keys, position)) for position, below in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            mistakes.extend(_mend_mapping(node, keys))
            waiting.extend((below, (*keys, str(key.value))) for key, below in node.value)
    return mistakes


def _mend_mapping(node: yaml.MappingNode, keys: tuple[str | int, ...]) -> Iterator[Mistake]:
    names: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        path, line = render_path((*keys, key.value)), key.start_mark.line + 1
        if key.tag != _STRING:
            key.tag = _STRING
            problem = "YAML reads this key as something other than text"
            yield Mistake(path=path, problem=problem, mend="put it in quotes", line=line)
        if key.value in names:
            yield Mistake(
                path=path, problem="stands twice, and only the last would count", mend="remove one", line=line
            )
        names.add(key.value)


def _below(node: yaml.Node | None, key: str | int) -> tuple[int, yaml.Node] | None:
    """The line and the node of a key in a mapping (the last counts, as merged keys come first) or of an entry."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in reversed(node.value):
            if key_node.value == key:
                return key_node.start_mark.line + 1, value_node
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line + 1, node.value[key]
    return None
