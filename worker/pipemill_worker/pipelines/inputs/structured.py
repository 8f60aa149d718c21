"""Texts that come in objects: tables, questions with contexts, queries with documents."""

from __future__ import annotations

from typing import Any, Final

from pipemill.errors import InvalidInput
from pipemill_worker.pipelines.inputs.common import (
    check_keys,
    check_one_or_many,
    check_size,
    check_text,
    kind_of,
    shorten,
)

#: Cells of one table, and characters in all of them: far more than the 512 tokens of the usual models hold.
MAX_CELLS: Final = 20_000
MAX_CELL_CHARACTERS: Final = 200_000


def check_tables(inputs: Any) -> None:
    """A table with its question or questions, or a list of them."""
    check_one_or_many(inputs, _check_table, "tables")


def _check_table(value: Any, what: str) -> None:
    check_keys(value, what, frozenset({"query", "table"}))
    queries = value["query"] if isinstance(value["query"], list) else [value["query"]]
    check_size(queries, "queries")
    for query in queries:
        check_text(query, f"'query' of {what}")
    table = value["table"]
    if not isinstance(table, dict) or not table:
        raise InvalidInput(f"'table' of {what} must be an object of columns, each a list of strings by its name")
    lengths = {len(cells) if isinstance(cells, list) else -1 for cells in table.values()}
    if len(lengths) != 1 or lengths <= {0, -1}:
        raise InvalidInput(f"the columns of 'table' of {what} must be lists of equal length, of at least one cell")
    if len(table) * lengths.pop() > MAX_CELLS:
        raise InvalidInput(f"'table' of {what} has more than {MAX_CELLS} cells: split it")
    for name, cells in table.items():
        for cell in cells:
            if cell != "":
                check_text(cell, f"a cell of column {shorten(name)!r} of {what}")
    if sum(len(cell) for cells in table.values() for cell in cells) > MAX_CELL_CHARACTERS:
        raise InvalidInput(f"the cells of 'table' of {what} have over {MAX_CELL_CHARACTERS} characters: split it")


def check_questions(inputs: Any) -> None:
    """A question with its context, or a list of them."""
    check_one_or_many(inputs, _check_question, "questions")


def _check_question(value: Any, what: str) -> None:
    check_keys(value, what, frozenset({"context", "question"}))
    for name in ("question", "context"):
        check_text(value[name], f"'{name}' of {what}")


def check_queries(inputs: Any) -> None:
    """A query with the documents to rank for it, or a list of them."""
    check_one_or_many(inputs, _check_query, "queries")


def _check_query(value: Any, what: str) -> None:
    check_keys(value, what, frozenset({"documents", "query"}))
    check_text(value["query"], f"'query' of {what}")
    documents = value["documents"]
    if not isinstance(documents, list):
        raise InvalidInput(f"'documents' of {what} must be a list of strings, not {kind_of(documents)}")
    check_size(documents, "documents")
    for position, document in enumerate(documents):
        check_text(document, f"document {position} of {what}")
