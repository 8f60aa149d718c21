"""What the builders share: seeding, sizes, tokenizers, and the way to disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
import transformers

#: transformers without its hints, which leave out much of what its classes take.
t: Final[Any] = transformers
#: Saves one row's model and all that belongs to it into a folder.
Builder: TypeAlias = Callable[[Path], None]

#: Sizes of every small transformer here, under the names that most configurations have for them.
SIZES: Final[Mapping[str, Any]] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}
#: Width and height of what the image models see.
IMAGE_SIZE: Final = 32
#: Labels of the classifiers of images and sounds.
LABELS: Final = ("cat", "dog", "bird", "fish", "horse")


def named_labels(names: tuple[str, ...] = LABELS) -> dict[str, Any]:
    """The two mappings of a configuration."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def random_model(build: Callable[[Any], Any], config: Any, seed: int = 7, gain: float = 1.5) -> Any:
    """A model of the configuration, the same at every call.

    Its weights are drawn anew, each layer's as wide as keeps what passes through it about as large as it was, or
    ``gain`` times that: as transformers draws them, all labels and tokens would come near to a tie.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=gain / math.sqrt(parameter[0].numel()))
        return model


def save(folder: Path, *parts: Any) -> None:
    """Write each part as ``save_pretrained`` does."""
    for part in parts:
        part.save_pretrained(folder)
