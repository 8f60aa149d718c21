"""How many tokens a model takes."""

from __future__ import annotations

import pytest
import torch

from pipemill.errors import InvalidParameter
from pipemill_worker.pipelines.limits import check_stride, token_limit
from tests.unit.pipelines.tiny import byte_tokenizer, tiny_model, wordpiece_tokenizer


@pytest.mark.parametrize(
    ("model_type", "limit"),
    [
        ("bert", 64),
        ("distilbert", 64),
        ("electra", 64),
        ("albert", 64),
        ("roberta", 62),
        ("mpnet", 62),
        ("xlm-roberta", 62),
        ("bart", 64),
        ("roformer", 64),
        ("deberta-v2", None),
        ("modernbert", None),
    ],
)
def test_limit_of_encoders_is_what_they_run(model_type: str, limit: int | None) -> None:
    """A model runs on as many tokens as its limit says, and fails on one more; without a limit it runs on more."""
    model = tiny_model("feature-extraction", model_type, wordpiece_tokenizer(), max_position_embeddings=64)
    assert token_limit(model) == limit
    with torch.no_grad():
        model(input_ids=torch.full((1, limit or 80), 7))
        if limit is not None:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, limit + 1), 7))


@pytest.mark.parametrize(
    ("model_type", "limit"), [("gpt2", 64), ("gpt_neo", 64), ("opt", 64), ("llama", None), ("gpt_neox", None)]
)
def test_limit_of_decoders_is_what_they_run(model_type: str, limit: int | None) -> None:
    """As above for decoders; rotary positions have no end."""
    model = tiny_model("text-generation", model_type, byte_tokenizer(), max_position_embeddings=64)
    assert token_limit(model) == limit
    with torch.no_grad():
        model(input_ids=torch.full((1, limit or 80), 7))
        if limit is not None:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, limit + 1), 7))


def test_stride_must_leave_something_to_move_by() -> None:
    """A stride of all of a chunk's tokens is refused; one less, and none at all, pass."""
    check_stride(None, 10)
    check_stride(9, 10)
    with pytest.raises(InvalidParameter, match="give at most 9"):
        check_stride(10, 10)
