"""The group key: what makes items share a forward pass, and what keeps them apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipemill_worker.pipelines.grouping import SharingRule, group_key
from pipemill_worker.pipelines.rules import Sharing

EXACT = SharingRule(sharing=Sharing.EXACT)
OWN = frozenset({"candidate_label", "sentence", "special_tokens_mask"})
PADDED = SharingRule(sharing=Sharing.PADDED, pad_token_id=0, per_item=OWN)


def tokens(length: int, **others: Any) -> dict[str, Any]:
    """Model inputs of so many tokens."""
    ids = torch.ones(1, length, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": ids, **others}


def test_lengths_matter_by_exact_shape_only() -> None:
    """Different lengths share when padded, and stay apart by exact shape."""
    assert group_key(tokens(3), {}, PADDED) == group_key(tokens(5), {}, PADDED)
    assert group_key(tokens(3), {}, EXACT) != group_key(tokens(5), {}, EXACT)
    assert group_key(tokens(3), {}, EXACT) == group_key(tokens(3), {}, EXACT)


def test_forward_parameters_must_be_equal() -> None:
    """Jobs with different forward parameters stay apart, however alike these look."""
    parameters: list[dict[str, Any]] = [{}, {"n": 1}, {"n": True}, {"n": 1.0}, {"n": "1"}, {"n": [1]}, {"n": {"n": 1}}]
    keys = [group_key(tokens(3), each, PADDED) for each in parameters]
    assert len(set(keys)) == len(keys)
    assert group_key(tokens(3), {"a": 1, "b": [2]}, PADDED) == group_key(tokens(4), {"b": [2], "a": 1}, PADDED)


def test_values_of_an_item_may_differ() -> None:
    """What only the postprocessing reads may differ: labels, sentences, masks of special tokens."""
    one = tokens(3, candidate_label="a", sentence=None, special_tokens_mask=torch.ones(1, 3))
    other = tokens(4, candidate_label="b", sentence="x", special_tokens_mask=torch.ones(1, 4))
    assert group_key(one, {}, PADDED) == group_key(other, {}, PADDED)


def test_all_other_values_must_be_equal() -> None:
    """A value that the model may read (labels of an image classifier, say) keeps items with others apart."""
    keys = [group_key(tokens(3, candidate_labels=labels), {}, PADDED) for labels in (["a"], ["a"], ["b"], "a", None)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_all_other_tensors_share_by_exact_shape() -> None:
    """A tensor of unknown meaning isn't padded, nor mixed with another type or rank."""
    shapes = [torch.ones(1, 3), torch.ones(1, 4), torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, 1)]
    assert len({group_key(tokens(3, position_ids=tensor), {}, PADDED) for tensor in shapes}) == 4


@pytest.mark.parametrize("value", [object(), torch.ones(2, 3), {1, 2}])
def test_what_cannot_be_compared_runs_alone(value: Any) -> None:
    """A value that can't be compared, or a tensor that isn't one row, has no key."""
    assert group_key(tokens(3, other=value), {}, PADDED) is None


def test_solo_has_no_key() -> None:
    """A pipeline that never shares gives no keys."""
    assert group_key(tokens(3), {}, SharingRule(sharing=Sharing.SOLO)) is None
