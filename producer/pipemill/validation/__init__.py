"""What pydantic found wrong, in plain words: path, problem, mend. Knows no model of its own."""

from pipemill.validation.explain import Explanation, explain, mistaken, several
from pipemill.validation.schema import allowed, schema_of
from pipemill.validation.words import did_you_mean, render_path, shown

__all__ = [
    "Explanation",
    "allowed",
    "did_you_mean",
    "explain",
    "mistaken",
    "render_path",
    "schema_of",
    "several",
    "shown",
]
