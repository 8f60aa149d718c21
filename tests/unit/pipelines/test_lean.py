"""Llama's step in few operations: the model's own tokens, or none of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import transformers

from pipemill_worker.pipelines.prepacked import prepack
from pipemill_worker.pipelines.writing.draft import Draft
from pipemill_worker.pipelines.writing.drafting import Drafter
from pipemill_worker.pipelines.writing.lean import Lean, lean
from pipemill_worker.pipelines.writing.reading import read_end_to_end
from pipemill_worker.pipelines.writing.writer import Writer

#: Wide weights, so that greedy choices are no near ties.
SIZES: dict[str, Any] = {
    "vocab_size": 211,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}
PROMPTS = [[5, 9, 14], [7], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [100, 101], [5, 9, 14, 20], list(range(20, 60))]


def model_of(kind: str, **other: Any) -> Any:
    """A random one."""
    torch.manual_seed(3)
    config, made = CLASSES[kind]
    return made(config(**{**SIZES, "sliding_window": None, **other})).eval()


class Generates:
    """What a pipeline does with its model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, inputs: dict[str, torch.Tensor], **parameters: Any) -> Any:
        """Write."""
        return self.model.generate(**inputs, **parameters)


def alone(model: Any, prompt: list[int], new: int) -> list[int]:
    """What the model itself writes."""
    ids = torch.tensor([prompt])
    written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False)
    return written[0].tolist()  # type: ignore[no-any-return]  # a tensor's


def draft_of(model: Any, prompt: list[int], new: int) -> Draft:
    """A prompt that may join."""
    ids = torch.tensor([prompt])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    draft = Drafter(Generates(model)).draft(inputs, {"max_new_tokens": new, "do_sample": False})
    assert draft is not None
    return draft


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}}),
        ("mistral", {}),
        ("qwen2", {}),
        ("qwen3", {}),
    ],
    ids=str,
)
def test_it_writes_what_the_model_writes(kind: str, other: dict[str, Any]) -> None:
    """Prompts of many lengths, read and written together, some of them longer than what is read at once."""
    model = model_of(kind, **other)
    asked = [(prompt, 6 + 5 * place) for place, prompt in enumerate([*PROMPTS, [9, *range(3, 203)]])]
    expected = [alone(model, *each) for each in asked]
    step = lean(model, prepack(model, range(1, 65), writes=True))
    assert isinstance(step, Lean)
    writer = Writer(model, max_rows=8, max_tokens=4_096, lean=step)
    waiting, written = list(enumerate(asked)), dict[Any, torch.Tensor]()
    while waiting or writer.busy:
        if waiting:
            number, (prompt, new) = waiting.pop()
            writer.join(number, draft_of(model, prompt, new))
        written.update(writer.step())
    assert [written[number][0].tolist() for number in range(len(asked))] == expected


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: model_of("mistral", sliding_window=8), id="a window"),
        pytest.param(lambda: model_of("llama", attn_implementation="eager"), id="another attention"),
        pytest.param(
            lambda: transformers.GPT2LMHeadModel(
                transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50)
            ),
            id="another type",
        ),
    ],
)
def test_other_models_keep_their_own_step(model: Any) -> None:
    """What isn't known to be Llama's isn't tried."""
    made = model()
    assert lean(made.eval(), prepack(made, range(1, 65), writes=True)) is None


def test_a_step_that_disagrees_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    """A layer that computes otherwise than its type says is found before the first job, and the log says so."""
    model = model_of("llama")
    products = prepack(model, range(1, 65), writes=True)
    assert lean(model, products) is not None
    plain = model.model.norm.forward
    model.model.norm.forward = lambda hidden: 2 * plain(hidden)
    with caplog.at_level(logging.INFO):
        assert lean(model, products) is None
    assert "LlamaForCausalLM keeps transformers' own step (other numbers)" in caplog.messages


def test_a_model_without_products_keeps_its_own_step() -> None:
    """A quantised or half-precision one has none."""
    assert lean(model_of("llama"), {}) is None


def test_a_model_that_lacks_a_part_keeps_its_own_step(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is raised; the log says what is missing."""
    model = model_of("llama")
    products = prepack(model, range(1, 65), writes=True)
    del model.model.rotary_emb
    with caplog.at_level(logging.INFO):
        assert lean(model, products) is None
    assert any("own step (AttributeError: " in message and "rotary_emb" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("lengths", "most", "chosen"),
    [
        ([10], 256, [0]),
        ([300, 5], 256, [0]),
        ([None, 5], 256, [0]),
        ([100, 200, 156, 1], 256, [0, 2]),
        ([10, None, 20], 256, [0, 2]),
    ],
    ids=["one", "too long", "read in part", "what fits", "one read in part among others"],
)
def test_what_is_read_end_to_end(lengths: list[int | None], most: int, chosen: list[int]) -> None:
    """In order of arrival, whole prompts."""
    assert read_end_to_end(lengths, most) == chosen
