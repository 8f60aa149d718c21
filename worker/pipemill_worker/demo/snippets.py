"""The labelled snippets that the demo models learn from: reading them, and holding a tenth of them out."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The files of the data folder: tab-separated, with the columns `rating` and `text`.
FILES: Final = ("movies.tsv", "products.tsv")
#: One snippet in this many is held out; which, only its text decides.
HELD_OUT_ONE_IN: Final = 10
#: A rating this close to 0 has no clear sign: such snippets are trained on, but not counted in the accuracy.
NEUTRAL_BAND: Final = 0.5

_NOT_WORDS: Final = re.compile(r"\W+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Snippet:
    """A sentence or two of a review, with what ten people thought of it."""

    #: The words.
    text: str
    #: Mean of ten ratings, -4 (very negative) to +4 (very positive).
    rating: float
    #: Name of the file it came from, without its suffix.
    source: str

    @property
    def held_out(self) -> bool:
        """Whether no training sees it: the same for texts that differ only in case and punctuation."""
        words = _NOT_WORDS.sub(" ", self.text.casefold()).strip()
        return int(hashlib.sha256(words.encode()).hexdigest()[:8], 16) % HELD_OUT_ONE_IN == 0

    @property
    def clear(self) -> bool:
        """Whether the rating has a clear sign."""
        return abs(self.rating) > NEUTRAL_BAND


def read_snippets(folder: Path) -> list[Snippet]:
    """All snippets of the data folder, in the files' order.

    Raises FileNotFoundError when the folder lacks one of the files, and ValueError when a row isn't a rating and a
    text.
    """
    return [snippet for name in FILES for snippet in _read_file(folder / name)]


def _read_file(path: Path) -> list[Snippet]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: --data takes the folder that holds {' and '.join(FILES)}")
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or rows[0] != ["rating", "text"]:
        raise ValueError(f"{path} doesn't start with the header `rating<TAB>text`: add it, or check the file")
    return [_parse(row, path, number) for number, row in enumerate(rows[1:], start=2)]


def _parse(row: list[str], path: Path, number: int) -> Snippet:
    try:
        rating, text = row
        return Snippet(text=text, rating=float(rating), source=path.stem)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: expected a rating, a tab and a text ({error}); mend it") from error
