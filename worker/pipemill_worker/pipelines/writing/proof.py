"""Whether an encoder-decoder's texts may be written together: if rows at places of their own come out as alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.writing.places import Places
from pipemill_worker.pipelines.writing.sharing import share, unshare
from pipemill_worker.pipelines.writing.sources import SourceSlab

log = logging.getLogger("pipemill.worker")

#: By how much logits of rows written together may differ from those of each alone, as a share of the largest: most of
#: them; and any, since made-up tokens can lead a model to where rounding counts for much.
TOLERANCES: Final = {torch.float32: 1e-4, torch.float64: 1e-4}
COARSE: Final = 0.05
#: Rows that are tried together, each by its own tokens and its source's.
_TEXTS: Final = (((1, 4),), ((2, 5), (2, 5)), ((1, 3), (5, 7), (3, 5)))
#: What hears always hears equally long, silence behind it included.
_SOUNDS: Final = (((1, 4),), ((2, 4), (2, 4)), ((1, 4), (5, 4), (3, 4)))


def proven_places(model: Any) -> tuple[Places, int] | None:
    """What puts the rows of an encoder-decoder's steps at places of their own, and the bytes that a token is kept in.

    ``None`` for models whose rows then don't come out as they do alone, which is tried: first with sources that are
    looked at by several rows, then with one for each.
    """
    name = type(model).__name__
    if share(model):
        found, why = _tried(model, shared=True)
        if found is not None:
            return found
        unshare(model)
        log.info("%s looks at sources row by row (%s)", name, why, extra={"event": "sources_not_shared"})
    found, why = _tried(model, shared=False)
    if found is None:
        log.info("%s isn't written token by token (%s)", name, why, extra={"event": "places_not_own"})
    return found


def _tried(model: Any, *, shared: bool) -> tuple[tuple[Places, int] | None, str]:
    """As ``proven_places``; or why not."""
    tried = _TEXTS if model.main_input_name == "input_ids" else _SOUNDS
    try:
        places = Places(model.get_decoder(), shared=shared)
        kept = {_kept_where_equal(model, places, shapes) for shapes in tried}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # It is made otherwise.
        return None, f"{type(error).__name__}: {shorten(error)}"
    if None in kept:
        return None, "other numbers"
    return (places, max(each for each in kept if each is not None)), ""


@torch.inference_mode()
def _kept_where_equal(model: Any, places: Places, shapes: Sequence[tuple[int, int]]) -> int | None:
    """Bytes of a token, if rows of these shapes, by their own tokens and their sources', come out as alone.

    All but the first have a second row, which reads the same source.
    """
    slab = SourceSlab(2 * len(shapes) * sum(map(max, zip(*shapes, strict=True))) * 4, places)
    alone: list[_Alone] = []
    for number, shape in enumerate(shapes):
        for beam in range(2 if number else 1):
            alone.append(_Alone(model, number, beam, *shape))
            slab.add(alone[-1].cache, beside=len(alone) - 2 if beam else None)
    apart: list[torch.Tensor] = []
    for step in range(3):
        tokens = [each.token(step) for each in alone]
        inputs = slab.inputs(tokens)
        with slab.placed(tokens, inputs):
            ours = model(**inputs, use_cache=True, return_dict=True).logits[:, -1]
        slab.step()
        theirs = torch.cat([each.logits(token) for each, token in zip(alone, tokens, strict=True)])
        apart.append((ours - theirs).abs().amax(dim=1) / theirs.abs().max())
    shares = torch.cat(apart)
    if not (shares.max() <= COARSE and shares.median() <= TOLERANCES.get(model.dtype, COARSE)):
        return None
    layers: list[Any] = alone[0].cache.cross_attention_cache.layers
    kept: int = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    return kept // shapes[0][1]


class _Alone:
    """A row of fixed tokens, written by itself."""

    def __init__(self, model: Any, number: int, beam: int, tokens: int, source: int) -> None:
        self._model, self._number = model, 2 * number + beam
        size = model.get_encoder().config.hidden_size
        encoded = torch.arange(source * size, device=model.device).add(number).sin().reshape(1, source, size)
        self._encoded = BaseModelOutput(last_hidden_state=encoded.to(model.dtype))
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._pass([self.token(3 + place) for place in range(tokens)])

    def token(self, place: int) -> int:
        """Any, but a fixed one."""
        vocabulary: int = self._model.get_output_embeddings().weight.shape[0]
        return (7 * place + 11 * self._number + 5) % vocabulary

    def logits(self, token: int) -> torch.Tensor:
        """Those behind one token more: ``[1, vocabulary]``."""
        return self._pass([token])

    def _pass(self, tokens: list[int]) -> torch.Tensor:
        ids = torch.tensor([tokens], device=self._model.device)
        given = {"encoder_outputs": self._encoded, "decoder_input_ids": ids, "past_key_values": self.cache}
        logits: torch.Tensor = self._model(**given, use_cache=True, return_dict=True).logits[:, -1]
        return logits
