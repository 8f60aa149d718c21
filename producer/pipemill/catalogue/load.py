"""Finds, reads, checks and completes the catalogue. Priority: options > environment > file > defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipemill.catalogue.broker import DEFAULT_BROKER, BrokerUrl
from pipemill.catalogue.document import Document, read_document
from pipemill.catalogue.mistakes import Mistake, catalogue_error
from pipemill.catalogue.model import Catalogue
from pipemill.catalogue.overlay import CATALOGUE_VARIABLE, Environ, from_environ, from_options, variable_of
from pipemill.catalogue.rules import find_missing_models
from pipemill.errors import ConfigurationError
from pipemill.validation import Explanation, explain, render_path, schema_of

#: The catalogue of the working directory, taken when none is named.
DEFAULT_FILE: Final = Path("pipemill.yaml")
#: What to do when there is no catalogue.
_NAME_ONE: Final = f"name one by option or in {CATALOGUE_VARIABLE}, or write {DEFAULT_FILE} in the working directory"

_File = str | os.PathLike[str]


def find_catalogue(path: _File | None = None, environ: Environ | None = None) -> Path | None:
    """The catalogue's file: the one given, else ``PIPEMILL_CATALOGUE``, else ``./pipemill.yaml`` if it exists."""
    named = path or (os.environ if environ is None else environ).get(CATALOGUE_VARIABLE)
    if named:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def load_catalogue(
    path: _File | None = None, *, environ: Environ | None = None, overrides: Mapping[str, Any] | None = None
) -> Catalogue:
    """Load the catalogue of ``path`` (or the one that ``find_catalogue`` finds), complete and checked.

    ``overrides`` are a command's options by name, such as ``lease_seconds``; ``None`` counts as not given.

    Raises
    ------
    CatalogueError
        With every mistake, each by its path and with its mend.

    """
    catalogue, mistakes = _examine(path, environ, overrides)
    if catalogue is None:
        raise catalogue_error(find_catalogue(path, environ), mistakes)
    return catalogue


def find_mistakes(
    path: _File | None = None,
    *,
    environ: Environ | None = None,
    overrides: Mapping[str, Any] | None = None,
    check_files: bool = False,
) -> list[Mistake]:
    """Every mistake that ``load_catalogue`` would raise; with ``check_files`` also the models that aren't on disk."""
    return _examine(path, environ, overrides, check_files=check_files)[1]


def resolve_broker(
    broker: str | None = None, catalogue_path: _File | None = None, environ: Environ | None = None
) -> str:
    """The broker's whole URL: the one given, else ``PIPEMILL_BROKER``, else the catalogue's, else localhost.

    Of the catalogue only the broker is read: a client needs none of the models.

    Raises
    ------
    ConfigurationError
        When the URL is wrong, or the catalogue can't be read.

    """
    environ = os.environ if environ is None else environ
    variable = variable_of("broker")
    for name, url in (("broker", broker), (variable, environ.get(variable))):
        if url:
            try:
                return BrokerUrl(url).reveal()
            except ValueError as error:
                raise ConfigurationError(f"{name}: {error}") from None
    file = find_catalogue(catalogue_path, environ)
    return _broker_of(file) if file else DEFAULT_BROKER


def _broker_of(file: Path) -> str:
    document = read_document(file)
    if not document.readable:
        raise catalogue_error(file, document.mistakes)
    try:
        return BrokerUrl.validate(document.data.get("broker", DEFAULT_BROKER)).reveal()
    except ValueError as error:
        raise ConfigurationError(f"{file}: broker: {error}") from None


def _examine(
    path: _File | None, environ: Environ | None, overrides: Mapping[str, Any] | None, *, check_files: bool = False
) -> tuple[Catalogue | None, list[Mistake]]:
    """The catalogue, or the mistakes that keep it from being one."""
    options, options_mistakes = from_options(overrides)
    variables, variables_mistakes = from_environ(environ)
    file = find_catalogue(path, environ)
    document = read_document(file) if file else None
    mistakes = [*_check_file(file, document, check_files=check_files), *options_mistakes, *variables_mistakes]
    if mistakes or file is None or document is None:
        return None, mistakes
    data = options.over(variables).apply(document.data)
    return Catalogue.model_validate(data, context=_context(file)), []


def _check_file(file: Path | None, document: Document | None, *, check_files: bool) -> list[Mistake]:
    """The mistakes of the file itself, in the order of its lines."""
    if file is None or document is None:
        return [Mistake(path="", problem="there is no catalogue", mend=_NAME_ONE)]
    if not document.readable:
        return document.mistakes
    found = list(find_missing_models(document.data, file.parent)) if check_files else []
    try:
        Catalogue.model_validate(document.data, context=_context(file))
    except ValidationError as error:
        found.extend(explain(error, schema_of(Catalogue)))
    mistakes = [*document.mistakes, *(_locate(each, document) for each in found)]
    return sorted(mistakes, key=lambda each: each.line or 0)


def _context(file: Path) -> dict[str, Path]:
    return {"folder": file.parent}


def _locate(found: Explanation, document: Document) -> Mistake:
    line = document.line_of(found.keys)
    return Mistake(path=render_path(found.keys), problem=found.problem, mend=found.mend, line=line)
