"""Where the layers of an encoder are, by model type, and how positions reach them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from torch import nn

from pipemill_worker.pipelines.packing import mpnet


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """What of a model's base must be known to pack it."""

    #: The module that runs the layers, or the list of them if the base itself does.
    layers: str
    #: The module that computes the positions' sines and cosines for all layers; "" where positions are added before.
    rotary: str = ""
    #: Which attention the model has by default.
    attention: str = "sdpa"
    #: What lets a model's attention see each row alone, and returns how to undo it; ``None``: transformers' interface.
    adapt: Callable[[Any], Callable[[], None]] | None = None
    #: The module of a layer whose output is all that the rest of the layer sees of a token; "" where there is none.
    attended: str = ""
    #: The module that makes queries for transformers' attention interface, if what it finds goes, with what the layer
    #: was given, straight into the one above; "" where it is otherwise.
    query: str = ""
    #: The modules that make keys and values, after the queries, if these reach the attention as they were made.
    sources: tuple[str, str] | None = None

    def ends(self, base: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The module whose input is to be packed, and the one whose output is to be unpacked."""
        layers = base.get_submodule(self.layers)
        return (layers[0], layers[-1]) if isinstance(layers, nn.ModuleList) else (layers, layers)

    def last_read(self, model: Any) -> nn.Module | None:
        """The last layer, if of its output each row's first token only is read; ``None`` if all are."""
        if not self.attended or not type(model).__name__.endswith(_FIRST_READERS):
            return None
        last: nn.Module = model.base_model.get_submodule(self.layers).layer[-1]
        return last


#: How the classes of models are called whose heads look at a row's first token, in the architectures that say how a
#: layer is ``attended``.
_FIRST_READERS: Final = "ForSequenceClassification"

_ADDED: Final = Stack(layers="encoder")
_BERT: Final = Stack(
    layers="encoder",
    attended="attention.output",
    query="attention.self.query",
    sources=("attention.self.key", "attention.self.value"),
)
_ROTATED: Final = Stack(layers="layers", rotary="rotary_emb")

#: By model type. All see both sides, and no layer looks at a neighbour but by attention.
STACKS: Final[Mapping[str, Stack]] = MappingProxyType(
    {
        "albert": _ADDED,
        "bert": _BERT,
        "camembert": _BERT,
        "data2vec-text": _BERT,
        "distilbert": Stack(layers="transformer", attended="sa_layer_norm"),
        "electra": _BERT,
        "ernie": _BERT,
        "esm": replace(_BERT, rotary="rotary_embeddings", sources=None),
        "eurobert": _ROTATED,
        "gte": _ROTATED,
        "jina_embeddings_v3": _ROTATED,
        "mobilebert": _ADDED,
        "modernbert": _ROTATED,
        "mpnet": Stack(layers="encoder", attention="eager", adapt=mpnet.adapt, attended="attention.LayerNorm"),
        "nomic_bert": _ROTATED,
        "roberta": _BERT,
        "roberta-prelayernorm": _BERT,
        "ultrabert": _ROTATED,
        "xlm-roberta": _BERT,
        "xlm-roberta-xl": _BERT,
    }
)
