"""How a model's passes are laid out: rows end to end or padded, weights as torch has them or as oneDNN reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from pipemill_worker.pipelines.packing import Packing
from pipemill_worker.pipelines.prepacked import Product, most_rows, restore
from pipemill_worker.pipelines.settings import ModelSettings


class Layout:
    """Of one model; it changes before the first job is prepared, not after."""

    def __init__(self, model: Any, settings: ModelSettings, products: Mapping[int, Product], *, packs: bool) -> None:
        self._model = model
        # A product of other sizes is rounded otherwise, which shows in coarse numbers; compiled layers stay as is.
        fine = model.dtype is torch.float32
        self._every_token = settings.compile or settings.quantisation is not None or not fine
        #: Whose products they are, by layer; torch's where there is none.
        self.products = products
        self._packing = self._packed() if packs else None

    @property
    def packs(self) -> bool:
        """Whether rows lie end to end."""
        return self._packing is not None

    def pad(self) -> None:
        """From now on, pad rows."""
        if self._packing is not None:
            self._packing.undo()
            self._packing = None

    def multiply_plainly(self) -> None:
        """From now on, torch multiplies."""
        with self.padding():
            restore(self._model)
            self.products = {}

    @contextmanager
    def padding(self) -> Iterator[None]:
        """Pad rows meanwhile, instead of laying them end to end."""
        packs = self.packs
        self.pad()
        try:
            yield
        finally:
            self._packing = self._packed() if packs else None

    @contextmanager
    def multiplying_plainly(self) -> Iterator[None]:
        """Let torch multiply meanwhile."""
        products = self.products
        with self.padding():
            undo, self.products = restore(self._model), {}
        try:
            yield
        finally:
            with self.padding():
                undo()
                self.products = products

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        """Let the model compute meanwhile as the pipeline itself would, without what makes passes shorter."""
        with self.padding(), self.multiplying_plainly():
            yield

    def _packed(self) -> Packing:
        return Packing(self._model, every_token=self._every_token, most_filled=most_rows(self.products))
