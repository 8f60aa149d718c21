"""All hostile jobs, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.e2e.hostile import inputs, parameters
from tests.e2e.hostile.queues import Case

#: Every case, by its name.
CASES: Final[Mapping[str, Case]] = dict([*inputs.cases(), *parameters.cases()])
