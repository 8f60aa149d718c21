"""Models that take two kinds of things: an image or a sound, and words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.tasks.models.parts import IMAGE_SIZE, SIZES, Builder, random_model, save, t
from tests.tasks.models.tokens import ids, of_bytes, wordpiece

_SQUARE: Final = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
_VISION: Final[dict[str, Any]] = {**SIZES, "image_size": IMAGE_SIZE, "patch_size": 8}
_LLAMA: Final[dict[str, Any]] = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 1024}
#: Chats in few tokens; what isn't text in a message comes where it stands.
_TEMPLATE: Final = (
    "{% for message in messages %}<{{ message.role }}>{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}<image>{% else %}<|AUDIO|>{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def _clip_tokenizer() -> Any:
    return wordpiece(model_input_names=["input_ids", "attention_mask"])


def label_clip(folder: Path) -> None:
    """Images and words in one space."""
    tokenizer = _clip_tokenizer()
    words = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "projection_dim": 16}
    config = t.CLIPConfig(
        text_config={**words, **ids(tokenizer, "bos", "eos", "pad")},
        vision_config={**_VISION, "projection_dim": 16},
        projection_dim=16,
    )
    processor = t.CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=_SQUARE)
    save(folder, random_model(t.CLIPModel, config), t.CLIPProcessor(processor, tokenizer))


def find_owlvit(folder: Path) -> None:
    """Each patch of an image against some words."""
    tokenizer = _clip_tokenizer()
    tokenizer.model_max_length = 16
    words = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    config = t.OwlViTConfig(
        text_config={**words, **ids(tokenizer, "bos", "eos", "pad")}, vision_config=_VISION, projection_dim=32
    )
    processor = t.OwlViTImageProcessorPil(size=_SQUARE, do_center_crop=False)
    save(folder, random_model(t.OwlViTForObjectDetection, config), t.OwlViTProcessor(processor, tokenizer))


def ask_layoutlm(folder: Path) -> None:
    """The words of a page and where they stand; the image itself isn't looked at."""
    tokenizer = wordpiece()
    sizes = {**SIZES, "max_2d_position_embeddings": 1024, "max_position_embeddings": 256}
    config = t.LayoutLMConfig(**sizes, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    save(folder, random_model(t.LayoutLMForQuestionAnswering, config), tokenizer)


def ask_donut(folder: Path) -> None:
    """It reads the image itself and writes its answer."""
    marks = ("<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>")
    tokenizer = of_bytes(*marks, model_max_length=128)
    encoder = t.DonutSwinConfig(
        image_size=IMAGE_SIZE, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2, mlp_ratio=2.0
    )
    special = {**ids(tokenizer, "pad", "eos"), "bos_token_id": tokenizer.eos_token_id}
    decoder = t.MBartConfig(
        **special,
        vocab_size=len(tokenizer),
        d_model=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        max_position_embeddings=128,
        is_decoder=True,
        add_cross_attention=True,
        is_encoder_decoder=False,
    )
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = random_model(lambda chosen: t.VisionEncoderDecoderModel(config=chosen), config)
    model.generation_config = t.GenerationConfig(
        **special, decoder_start_token_id=tokenizer.eos_token_id, max_new_tokens=12
    )
    # Untrained, it would never end its answer.
    model.generation_config.forced_eos_token_id = tokenizer.convert_tokens_to_ids("</s_answer>")
    save(folder, model, tokenizer, t.DonutImageProcessorPil(size=_SQUARE))


def tell_blip(folder: Path) -> None:
    """It goes on with a text about an image."""
    tokenizer = wordpiece(model_input_names=["input_ids", "attention_mask"])
    words = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "projection_dim": 16,
        "max_position_embeddings": 128,
        "eos_token_id": tokenizer.sep_token_id,
        **ids(tokenizer, "bos", "sep", "pad"),
    }
    config = t.BlipConfig(text_config=words, vision_config={**_VISION, "projection_dim": 16}, projection_dim=16)
    processor = t.BlipProcessor(t.BlipImageProcessorPil(size=_SQUARE), tokenizer)
    save(folder, random_model(t.BlipForConditionalGeneration, config), processor)


def tell_llava(folder: Path) -> None:
    """A decoder that gets an image's patches among its tokens, and chats."""
    tokenizer = of_bytes("<image>", model_max_length=1024)
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**_VISION, projection_dim=16),
        text_config=t.LlamaConfig(**_LLAMA, vocab_size=len(tokenizer), **ids(tokenizer, "bos", "eos", "pad")),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = t.LlavaProcessor(
        t.CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=_SQUARE),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
    save(folder, random_model(t.LlavaForConditionalGeneration, config), processor)


def hear_qwen2(folder: Path) -> None:
    """A decoder that gets sounds of up to three seconds among its tokens, and chats."""
    marks = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    tokenizer = of_bytes(*marks, model_max_length=1024)
    special = ids(tokenizer, "bos", "eos", "pad")
    sounds = t.Qwen2AudioEncoderConfig(
        num_mel_bins=16,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=37,
        d_model=32,
        max_source_positions=150,
    )
    config = t.Qwen2AudioConfig(
        audio_config=sounds,
        text_config=t.Qwen2Config(**_LLAMA, vocab_size=len(tokenizer), **special),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    extractor = t.WhisperFeatureExtractor(feature_size=16, chunk_length=3)
    processor = t.Qwen2AudioProcessor(extractor, tokenizer, chat_template=_TEMPLATE)
    model = random_model(t.Qwen2AudioForConditionalGeneration, config)
    model.generation_config = t.GenerationConfig(**special)
    save(folder, model, processor)


BUILDERS: Final[dict[str, Builder]] = {
    "zero-shot-image-classification.clip": label_clip,
    "zero-shot-object-detection.owlvit": find_owlvit,
    "document-question-answering.layoutlm": ask_layoutlm,
    "document-question-answering.donut": ask_donut,
    "image-text-to-text.blip": tell_blip,
    "image-text-to-text.llava": tell_llava,
    "any-to-any.qwen2-audio": hear_qwen2,
    "any-to-any.llava": tell_llava,
}
