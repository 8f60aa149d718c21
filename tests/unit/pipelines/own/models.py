"""Pipelines over tiny random models, and a batch of their items as a worker would make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import transformers

from pipemill_worker.pipelines.own import OWN_PIPELINES, register
from tests.unit.pipelines.tiny import OTHER_SIZES, PAD, SEP, SIZES, wordpiece_tokenizer

#: Model types whose tasks write a text.
_WRITERS: Final = ("bart", "mbart")


def own_model(task: str, model_type: str, tokenizer: Any, **options: Any) -> Any:
    """A random model for the task."""
    torch.manual_seed(11)
    settings = {
        **SIZES,
        **OTHER_SIZES.get(model_type, {}),
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id if model_type in _WRITERS else None,
        **options,
    }
    config = transformers.AutoConfig.for_model(model_type, **settings)
    _, model_class = OWN_PIPELINES[task]
    return model_class.from_config(config).eval()


def own_pipeline(task: str, model_type: str = "bert", tokenizer: Any = None, **options: Any) -> Any:
    """A pipeline over a random model on the CPU; ``options`` are the model's."""
    register()
    tokenizer = wordpiece_tokenizer() if tokenizer is None else tokenizer
    build: Any = transformers.pipeline
    return build(task, model=own_model(task, model_type, tokenizer, **options), tokenizer=tokenizer, device="cpu")


def writer(task: str = "text2text-generation", **options: Any) -> Any:
    """A pipeline over a random BART, whose texts end where ``[SEP]`` comes."""
    return own_pipeline(task, "bart", **{"forced_eos_token_id": SEP, **options})


def together(pipe: Any, items: Sequence[Mapping[str, Any]], own: Sequence[str] = (), **forward: Any) -> list[Any]:
    """Each item's outputs from one forward pass over all, padded on the right, their own values left behind."""
    batch: dict[str, Any] = {}
    for name, first in items[0].items():
        if name in own:
            batch[name] = None
        elif isinstance(first, torch.Tensor):
            fill = PAD if name == "input_ids" else 0
            rows = [item[name][0] for item in items]
            batch[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)
        else:
            batch[name] = first
    before = {name: value.clone() for name, value in batch.items() if isinstance(value, torch.Tensor)}
    outputs = pipe.forward(dict(batch), **forward)
    assert all(torch.equal(batch[name], value) for name, value in before.items())
    assert all(outputs[name] is None for name in own)
    return [
        {name: item[name] if name in own else value[row : row + 1] for name, value in outputs.items()}
        for row, item in enumerate(items)
    ]
