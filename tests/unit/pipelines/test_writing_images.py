"""Prompts with images, continued together: each is read by itself, and none takes another's beginning for its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from pipemill_worker.pipelines.writing.draft import continues
from pipemill_worker.pipelines.writing.drafting import Drafter
from pipemill_worker.pipelines.writing.writer import Writer
from tests.unit.pipelines.test_lean import SIZES, Generates

#: The token that stands for a part of an image.
IMAGE = 200
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def llava() -> Any:
    """16 tokens an image."""
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**SIZES),
        vision_config=transformers.CLIPVisionConfig(**_VISION, projection_dim=8),
        image_token_index=IMAGE,
        image_seq_length=16,
    )
    return transformers.LlavaForConditionalGeneration(config)


def idefics(kind: str) -> Any:
    """4 tokens an image."""
    config: Any = getattr(transformers, f"{kind}Config")(
        text_config=transformers.LlamaConfig(**SIZES),
        vision_config=dict(_VISION),
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


def prompt(model: Any, number: int, words: int) -> dict[str, torch.Tensor]:
    """An image of its own between words that are all the same."""
    plain = model.config.model_type == "llava"
    pixels = 3 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(number))
    ids = torch.tensor([[5, 6, *([IMAGE] * (16 if plain else 4)), *range(10, 10 + words)]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    return (
        inputs if plain else inputs | {"pixel_values": pixels[None], "pixel_attention_mask": torch.ones(1, 1, 32, 32)}
    )


@pytest.mark.parametrize(
    "made",
    [llava, lambda: idefics("SmolVLM"), lambda: idefics("Idefics3")],
    ids=["llava", "smolvlm", "idefics3"],
)
def test_prompts_with_images_are_written_together(made: Callable[[], Any]) -> None:
    """Equal words, different images: each goes on as the model goes on with it alone."""
    torch.manual_seed(0)
    model = made().eval()
    assert continues("image-text-to-text", model.config)
    asked = [(prompt(model, number, words), 6 + number) for number, words in enumerate((20, 20, 3, 20, 1))]
    expected = [model.generate(**inputs, max_new_tokens=new, do_sample=False)[0].tolist() for inputs, new in asked]
    assert len({tuple(each[-6:]) for each in expected}) == len(expected)
    writer, drafter = Writer(model, max_rows=8, max_tokens=4_096), Drafter(Generates(model))
    waiting, written = list(enumerate(asked)), dict[Any, torch.Tensor]()
    while waiting or writer.busy:
        for number, (inputs, new) in waiting[:2]:
            draft = drafter.draft(inputs, {"max_new_tokens": new, "do_sample": False})
            assert draft is not None
            assert draft.may_join()
            assert draft.sees
            writer.join(number, draft)
        del waiting[:2]
        written.update(writer.step())
    assert [written[number][0].tolist() for number in range(len(asked))] == expected


def test_a_draft_looks_at_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts are made in threads that don't own the device: the model's encoder runs in the first pass only."""
    model = llava().eval()
    monkeypatch.setattr(model.model.vision_tower, "forward", lambda *_, **__: pytest.fail("it looked"))
    assert Drafter(Generates(model)).draft(prompt(model, 0, 3), {"max_new_tokens": 2, "do_sample": False}) is not None


def test_which_models_continue_together() -> None:
    """Texts of decoders, and those that see by a first pass alone."""
    llama, bart = transformers.LlamaConfig(), transformers.BartConfig()
    assert continues("text-generation", llama)
    assert not continues("text-generation", bart)
    assert not continues("image-text-to-text", transformers.BlipConfig())
    assert not continues("any-to-any", llava().config)
