"""Tiny random models, one builder for each row of the matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.tasks.models import images, pairs, sounds, texts, writers
from tests.tasks.models.parts import Builder

#: Every builder, by the row's key.
BUILDERS: Final[Mapping[str, Builder]] = {
    **texts.BUILDERS,
    **writers.BUILDERS,
    **images.BUILDERS,
    **sounds.BUILDERS,
    **pairs.BUILDERS,
}
