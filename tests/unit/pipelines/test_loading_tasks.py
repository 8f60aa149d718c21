"""Loading models of every kind: which class, which parts, which weights may be missing, which packages are needed."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pipemill.errors import ModelLoadError
from pipemill_worker.pipelines.loading import load_pipeline
from pipemill_worker.pipelines.loading.classes import tasks
from pipemill_worker.pipelines.loading.needs import check_needs
from pipemill_worker.pipelines.loading.refusal import Refusal
from tests.tasks.models.images import BUILDERS as IMAGES
from tests.tasks.models.sounds import BUILDERS as SOUNDS
from tests.unit.pipelines.tiny import Settings, wordpiece_tokenizer

#: A tiny encoder-decoder, and a decoder.
BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "encoder_layers": 1,
    "decoder_layers": 1,
}
QWEN: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SPEECH: dict[str, Any] = {
    "hidden_size": 24,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "speech_decoder_prenet_units": 16,
    "speech_decoder_postnet_units": 16,
    "speech_decoder_postnet_layers": 2,
    "num_mel_bins": 8,
    "speaker_embedding_dim": 16,
}
HIFIGAN: dict[str, Any] = {
    "model_in_dim": 8,
    "upsample_initial_channel": 16,
    "upsample_rates": [2, 2],
    "upsample_kernel_sizes": [4, 4],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 1, 1]],
}


def load(folder: Path, task: str) -> Any:
    """The pipeline of a folder."""
    return load_pipeline("mine", Settings(task=task, model=str(folder)))


def refusal(folder: Path, task: str) -> str:
    """The error that loading ends in."""
    with pytest.raises(ModelLoadError) as caught:
        load(folder, task)
    return str(caught.value)


def save(folder: Path, build: Any, config: Any) -> None:
    """Save a random model and a tokenizer of words."""
    tokenizer = wordpiece_tokenizer()
    torch.manual_seed(7)
    build(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rewrite(folder: Path, change: Callable[[str], str | None]) -> None:
    """Rename the keys of saved weights, or drop them."""
    file = folder / "model.safetensors"
    weights = {new: value for key, value in load_file(file).items() if (new := change(key)) is not None}
    save_file(weights, file, {"format": "pt"})


def without(part: str) -> Callable[[str], str | None]:
    """Drop the keys that hold a part."""
    return lambda key: None if part in key else key


def as_before(key: str) -> str:
    """The name that a convolution's weight had when most speech models were saved."""
    return key.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


def test_every_task_is_known() -> None:
    """All tasks of transformers, and our own, have a pipeline."""
    own = {"question-answering", "rerank", "sentence-embedding", "summarization", "text2text-generation", "translation"}
    assert own <= set(tasks())
    assert len(tasks()) == 25 + len(own)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("image-classification.vit", {"image_processor"}),
        ("object-detection.yolos", {"image_processor"}),
        ("automatic-speech-recognition.wav2vec2-layer", {"tokenizer", "feature_extractor"}),
        ("audio-classification.ast", {"feature_extractor"}),
        ("zero-shot-audio-classification.clap", {"tokenizer", "feature_extractor"}),
        ("text-to-audio.vits", {"tokenizer"}),
    ],
)
def test_parts_are_those_that_transformers_loads(tmp_path: Path, row: str, parts: set[str]) -> None:
    """A pipeline has the parts that its task needs, each of the class that the direct call has."""
    {**IMAGES, **SOUNDS}[row](tmp_path)
    task = row.partition(".")[0]
    mine: Any = load(tmp_path, task)
    pipeline: Any = transformers.pipeline
    theirs = pipeline(task, str(tmp_path), device="cpu")
    names = ("tokenizer", "image_processor", "feature_extractor", "processor", "video_processor")
    assert {name for name in names if getattr(mine, name) is not None} == parts
    assert [type(getattr(mine, name)) for name in names] == [type(getattr(theirs, name)) for name in names]
    assert type(mine.model) is type(theirs.model)
    assert not mine.model.training


def test_the_class_is_chosen_by_the_configuration(tmp_path: Path) -> None:
    """Of a task's several classes, the one that knows the model's type loads it; else the one its checkpoint names."""
    SOUNDS["automatic-speech-recognition.whisper"](tmp_path / "whisper")
    whisper = load(tmp_path / "whisper", "automatic-speech-recognition")
    assert type(whisper.model) is transformers.WhisperForConditionalGeneration
    IMAGES["image-segmentation.mask2former"](tmp_path / "masks")
    masks = load(tmp_path / "masks", "image-segmentation")
    assert type(masks.model) is transformers.Mask2FormerForUniversalSegmentation
    vocabulary = len(wordpiece_tokenizer())
    save(
        tmp_path / "tapex",
        transformers.BartForConditionalGeneration,
        transformers.BartConfig(vocab_size=vocabulary, **BART),
    )
    tapex = load(tmp_path / "tapex", "table-question-answering")
    assert type(tapex.model) is transformers.BartForConditionalGeneration


def test_a_model_without_a_head_for_decisions_is_asked_for_tokens(tmp_path: Path) -> None:
    """A type that may have a head for decisions is loaded with it where the checkpoint has one, else without."""
    config = transformers.Qwen2Config(vocab_size=len(wordpiece_tokenizer()), **QWEN)
    save(tmp_path / "plain", transformers.Qwen2ForCausalLM, config)
    assert type(load(tmp_path / "plain", "decision").model) is transformers.Qwen2ForCausalLM
    head = transformers.JevConfig(text_config=config.to_dict(), hidden_size=32)
    save(tmp_path / "head", transformers.JevForDecision, head)
    pipe = load(tmp_path / "head", "decision")
    assert type(pipe.model) is transformers.JevForDecision
    assert pipe.decision_config == pipe.model.decision_config
    rewrite(tmp_path / "head", without("proj."))
    assert "its weights lack" in refusal(tmp_path / "head", "decision")


def test_a_deciders_own_adapter_must_be_safetensors(tmp_path: Path) -> None:
    """The pipeline would load its adapter as a pickle where it is no safetensors."""
    config = transformers.Qwen2Config(vocab_size=len(wordpiece_tokenizer()), **QWEN)
    save(tmp_path, transformers.Qwen2ForCausalLM, config)
    settings = transformers.decision.DecisionConfig(adapter="adapter")
    settings.save_pretrained(tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.bin").touch()
    assert "its adapter 'adapter' holds no adapter_model.safetensors" in refusal(tmp_path, "decision")


@pytest.mark.parametrize(
    ("task", "row"),
    [("object-detection", "image-classification.vit"), ("fill-mask", "audio-classification.ast")],
)
def test_a_model_of_another_kind(tmp_path: Path, task: str, row: str) -> None:
    """A type that the task's classes don't know is refused, not tried."""
    {**IMAGES, **SOUNDS}[row](tmp_path)
    text = refusal(tmp_path, task)
    assert "has no part in this task; choose a model for this task, or another task for this model" in text


def test_spectrograms_need_a_vocoder_of_ones_own(tmp_path: Path) -> None:
    """What makes sound of spectrograms is read from the model's folder, never from the hub."""
    config = transformers.SpeechT5Config(vocab_size=len(wordpiece_tokenizer()), **SPEECH)
    save(tmp_path, transformers.SpeechT5ForTextToSpeech, config)
    assert "save a SpeechT5HifiGan into vocoder/" in refusal(tmp_path, "text-to-audio")
    transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**HIFIGAN)).save_pretrained(tmp_path / "vocoder")
    pipe = load(tmp_path, "text-to-audio")
    assert not pipe.vocoder.training
    told = {"speaker_embeddings": torch.zeros(1, 16), "maxlenratio": 1.0}
    answer = pipe("river stone", forward_params=told)
    assert answer["audio"].size > 0
    assert answer["sampling_rate"] == 16_000


@pytest.mark.parametrize(
    ("row", "change"),
    [
        ("automatic-speech-recognition.wav2vec2-layer", as_before),
        ("text-to-audio.vits", as_before),
        ("audio-classification.wav2vec2", without("masked_spec_embed")),
        ("object-detection.detr", without("num_batches_tracked")),
    ],
)
def test_weights_that_no_answer_depends_on_may_be_missing(
    tmp_path: Path, row: str, change: Callable[[str], str | None]
) -> None:
    """Older names, and weights for training alone, are no reason to refuse a model."""
    {**IMAGES, **SOUNDS}[row](tmp_path)
    rewrite(tmp_path, change)
    load(tmp_path, row.partition(".")[0])


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("image-classification.vit", "classifier."),
        ("automatic-speech-recognition.wav2vec2-layer", "lm_head."),
        ("object-detection.yolos", "bbox_predictor."),
    ],
)
def test_a_missing_head_is_refused(tmp_path: Path, row: str, part: str) -> None:
    """Whatever the task, a head that would be made up is none."""
    {**IMAGES, **SOUNDS}[row](tmp_path)
    rewrite(tmp_path, without(part))
    text = refusal(tmp_path, row.partition(".")[0])
    assert "it wasn't trained for this task: its weights lack" in text
    assert part in text


def test_an_untrained_pooler_is_not_asked(tmp_path: Path) -> None:
    """Features of images need no pooler; where it isn't trained, ``pool`` is refused instead of made up."""
    from PIL import Image  # noqa: PLC0415  # an extra

    IMAGES["image-classification.vit"](tmp_path)
    pipe = load(tmp_path, "image-feature-extraction")
    image = Image.new("RGB", (32, 32), "teal")
    assert len(pipe(image)[0]) == 17
    with pytest.raises(ValueError, match="No pooled output was returned"):
        pipe(image, pool=True)


def test_letters_are_enough_for_speech(tmp_path: Path) -> None:
    """A recogniser may know few letters; one that knows special tokens alone has lost its files."""
    SOUNDS["automatic-speech-recognition.wav2vec2-layer"](tmp_path)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", "e", "t"]
    (tmp_path / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(letters)}))
    assert len(load(tmp_path, "automatic-speech-recognition").tokenizer) == len(letters)
    (tmp_path / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(letters[:5])}))
    assert "its tokenizer knows 5 tokens" in refusal(tmp_path, "automatic-speech-recognition")


@pytest.mark.parametrize(
    ("row", "file", "mend"),
    [
        ("image-classification.vit", "preprocessor_config.json", "copy the processor's files beside the model"),
        ("audio-classification.ast", "preprocessor_config.json", "copy the processor's files beside the model"),
        ("video-classification.videomae", "preprocessor_config.json", "copy the processor's files beside the model"),
        ("text-to-audio.vits", "vocab.json", "make sure that the tokenizer's files lie beside the model"),
    ],
)
def test_a_missing_part_is_named(tmp_path: Path, row: str, file: str, mend: str) -> None:
    """A part that a task can't do without is refused by name."""
    {**IMAGES, **SOUNDS}[row](tmp_path)
    (tmp_path / file).unlink()
    assert refusal(tmp_path, row.partition(".")[0]).endswith(f"; {mend}")


@pytest.mark.parametrize(
    ("task", "package", "mend"),
    [
        ("table-question-answering", "pandas", 'pip install "pipemill[tables]"'),
        ("image-classification", "PIL", 'pip install "pipemill[worker]"'),
        ("video-classification", "av", 'pip install "pipemill[worker-media]"'),
        ("mask-generation", "torchvision", "install the torchvision that belongs to this torch"),
    ],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, task: str, package: str, mend: str) -> None:
    """A task's own package is asked for before anything is loaded."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(Refusal, match=f"this task needs {package}, which isn't installed") as caught:
        check_needs(task)
    assert caught.value.mend.startswith(mend)


def test_a_torchvision_for_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is installed and doesn't load is told as such; one that loads is all that masks need."""
    broken = "operator torchvision::nms does not exist"

    def fail(_: str) -> ModuleType:
        raise RuntimeError(broken)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: importlib.machinery.ModuleSpec("there", None))
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(Refusal, match=broken) as caught:
        check_needs("mask-generation")
    assert caught.value.mend == "install the torchvision that belongs to this torch, from where torch came"
    monkeypatch.setattr(importlib, "import_module", ModuleType)
    check_needs("mask-generation")
