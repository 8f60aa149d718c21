"""Stands in for vLLM where it isn't installed: the part that pipemill uses, over a transformers model, greedy only.

As the real one does, it ends the whole process at a token that the model doesn't know.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

if os.environ.get("STAND_IN") == "broken":
    raise ImportError("no such library here")


class RequestOutputKind(Enum):
    """What a step's output holds."""

    CUMULATIVE = 0
    DELTA = 1


sampling_params = SimpleNamespace(RequestOutputKind=RequestOutputKind)


@dataclass(kw_only=True)
class SamplingParams:
    """How tokens are chosen."""

    max_tokens: int
    stop_token_ids: list[int]
    ignore_eos: bool
    detokenize: bool
    output_kind: RequestOutputKind
    temperature: float = 1.0
    min_tokens: int = 0

    def __post_init__(self) -> None:
        """Check them."""
        if self.temperature != 0:
            raise ValueError("this one takes the best only")
        if not self.ignore_eos or self.detokenize or self.output_kind is not RequestOutputKind.DELTA:
            raise TypeError("this one was made for pipemill")


@dataclass(kw_only=True)
class EngineArgs:
    """What an engine is made of."""

    model: str
    dtype: str
    max_model_len: int
    skip_tokenizer_init: bool
    generation_config: str
    max_num_seqs: int
    kv_cache_memory_bytes: int
    disable_log_stats: bool


class LLMEngine:
    """Writes by whole passes, without keys and values."""

    def __init__(self, arguments: EngineArgs) -> None:
        model: Any = AutoModelForCausalLM
        self._model = model.from_pretrained(arguments.model).eval()
        self.model_config = SimpleNamespace(max_model_len=arguments.max_model_len)
        self._rows: dict[str, tuple[list[int], list[int], SamplingParams]] = {}

    @classmethod
    def from_engine_args(cls, arguments: EngineArgs) -> LLMEngine:
        """Load the model."""
        return cls(arguments)

    def has_unfinished_requests(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._rows)

    def add_request(self, name: str, prompt: dict[str, list[int]], settings: SamplingParams) -> str:
        """Let a prompt join."""
        if name in self._rows:
            raise ValueError("there is one of that name")
        self._rows[name] = (list(prompt["prompt_token_ids"]), [], settings)
        return f"{name}-0"

    def abort_request(self, names: list[str]) -> None:
        """Stop writing these."""
        for name in names:
            self._rows.pop(name, None)

    @torch.inference_mode()
    def step(self) -> list[SimpleNamespace]:
        """A token more in each."""
        outputs = []
        for name, (prompt, written, settings) in list(self._rows.items()):
            if max(prompt) >= self._model.config.vocab_size:
                os.abort()
            logits = self._model(input_ids=torch.tensor([prompt + written])).logits[0, -1]
            if len(written) < settings.min_tokens:
                logits[settings.stop_token_ids] = -torch.inf
            written.append(int(logits.argmax()))
            over = len(written) >= settings.max_tokens or written[-1] in settings.stop_token_ids
            if over:
                del self._rows[name]
            row = SimpleNamespace(token_ids=written[-1:])
            outputs.append(SimpleNamespace(request_id=name, outputs=[row], finished=over))
        return outputs
