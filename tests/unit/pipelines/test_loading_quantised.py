"""Weights that are rounded when loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pipemill.errors import ConfigurationError, MissingExtra, ModelLoadError
from pipemill_worker.pipelines.loading import dynamic, load_pipeline, placing, quantising
from pipemill_worker.pipelines.loading.dynamic import DynamicLinear
from pipemill_worker.pipelines.loading.refusal import Refusal, explain
from pipemill_worker.pipelines.runner import TransformersRunner
from tests.unit.pipelines.tiny import Settings, tiny_model, unchecked, wordpiece_tokenizer

TEXTS = ["river stone", "cloud", "winter music garden letter"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A queue with a tiny classifier."""
    tokenizer = wordpiece_tokenizer()
    for part in (tiny_model("text-classification", "bert", tokenizer), tokenizer):
        part.save_pretrained(tmp_path)
    return Settings(task="text-classification", model=str(tmp_path))


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a CUDA device, and bitsandbytes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(quantising, "find_spec", lambda _: object())


def refusal(settings: Settings, kind: type[ConfigurationError] = ModelLoadError) -> str:
    """The error that loading ends in."""
    with pytest.raises(kind) as caught:
        load_pipeline("mine", settings)
    return str(caught.value)


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is an extra")
def test_int8_is_small_and_near(settings: Settings) -> None:
    """The linear layers' weights are whole numbers, and the answers near those of the weights as they were saved."""
    plain: Any = load_pipeline("mine", settings)
    rounded: Any = load_pipeline("mine", replace(settings, quantisation="int8"))
    weight = rounded.model.bert.encoder.layer[0].intermediate.dense.weight
    assert type(weight).__name__ == "Int8Tensor"
    assert rounded.model.bert.embeddings.word_embeddings.weight.dtype == torch.float32
    for text in TEXTS:
        scores = {one["label"]: one["score"] for one in plain(text, top_k=None)}
        near = {one["label"]: one["score"] for one in rounded(text, top_k=None)}
        assert near != scores
        assert near == pytest.approx(scores, abs=0.02)


def test_dynamic_int8_is_near(settings: Settings) -> None:
    """Layers compute in eight bits but for the head, and the answers are near those of the weights as saved."""
    plain: Any = load_pipeline("mine", settings)
    rounded: Any = load_pipeline("mine", replace(settings, quantisation="int8-dynamic"))
    assert type(rounded.model.bert.encoder.layer[0].intermediate.dense) is DynamicLinear
    assert type(rounded.model.classifier) is torch.nn.Linear
    for text in TEXTS:
        scores = {one["label"]: one["score"] for one in plain(text, top_k=None)}
        near = {one["label"]: one["score"] for one in rounded(text, top_k=None)}
        assert near != scores
        assert near == pytest.approx(scores, abs=0.05)


def test_dynamic_int8_answers_alike_in_a_batch(settings: Settings) -> None:
    """A token is rounded by itself: packed rows are what they are alone, and a layer's outputs are so bit for bit."""
    settings = replace(settings, quantisation="int8-dynamic")
    runner = TransformersRunner("mine", load_pipeline("mine", settings), settings, validate=unchecked)
    runner.warm_up()
    check = runner.describe()["self_check"]
    assert check["sharing"] == "packed"
    assert check["difference"] < 1e-6
    layer = dynamic.DynamicLinear(torch.nn.Linear(32, 64))
    rows = torch.randn(5, 32) * torch.tensor([[1.0], [1e3], [1e-3], [1.0], [0.0]])
    assert torch.equal(layer(rows), torch.cat([layer(row[None]) for row in rows]))


def test_a_rounded_layer_is_near_the_layer() -> None:
    """Whatever it is given, its outputs are off by a hundredth of the largest; also where all are at their largest."""
    torch.manual_seed(3)
    layer = torch.nn.Linear(512, 64)
    loud, quiet = torch.randn(1, 512) * 1e4, torch.randn(1, 512) * 1e-4
    for weights, given in (
        (layer.weight.detach().clone(), torch.stack([loud, quiet])),
        (torch.ones(64, 512), torch.ones(2, 1, 512)),
        (-torch.ones(64, 512), torch.ones(2, 1, 512)),
    ):
        layer.weight.data = weights
        expected = torch.nn.functional.linear(given, weights, layer.bias)
        off = (dynamic.DynamicLinear(layer)(given) - expected).abs().amax(-1) / expected.abs().amax(-1)
        assert off.max() < 0.02
    assert torch.equal(dynamic.DynamicLinear(layer)(torch.zeros(1, 512)), layer.bias.detach()[None])
    assert dynamic.DynamicLinear(layer)(torch.full((1, 512), float("nan"))).isnan().all()


def test_a_layer_in_two_places_is_rounded_once() -> None:
    """Models share layers, and go on to do so; other kinds of linear layers stay."""
    shared = torch.nn.Linear(8, 64, bias=False)
    model = torch.nn.Sequential(shared, torch.nn.Sequential(shared), torch.nn.MultiheadAttention(64, 2))
    dynamic.round_layers(model)
    assert type(model[0]) is DynamicLinear
    assert model[0] is model[1][0]
    assert type(model[2].out_proj) is not DynamicLinear


def test_dynamic_int8_that_cannot_be(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other devices, other number formats, adapters, and processors without a kernel are refused with a mend."""
    wanted = replace(settings, quantisation="int8-dynamic")
    assert "runs on the CPU only; set device: cpu" in refusal(replace(wanted, device="auto", device_map="auto"))
    assert "float32 weights, and dtype is bfloat16; set dtype: float32" in refusal(replace(wanted, dtype="bfloat16"))
    assert "layers that an adapter needs as they are; use int8" in refusal(replace(wanted, adapter="./adapter"))
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        for device in ("auto", "cuda:0"):
            assert "runs on the CPU only" in refusal(replace(wanted, device=device))
    with monkeypatch.context() as patch:
        patch.setattr(dynamic, "_kernels", object())
        assert "no kernel of eight bits for this processor; use int8" in refusal(wanted)
    monkeypatch.setattr(dynamic, "FEWEST_OUTPUTS", 1_000)
    assert "no linear layers to round; remove quantisation" in refusal(wanted)


def test_dynamic_int8_of_a_half_checkpoint(settings: Settings, tmp_path: Path) -> None:
    """A checkpoint saved in half precision is told to be read as float32, and then can be."""
    load_pipeline("mine", replace(settings, dtype="bfloat16")).model.save_pretrained(tmp_path / "half")
    wordpiece_tokenizer().save_pretrained(tmp_path / "half")
    wanted = replace(settings, quantisation="int8-dynamic", model=str(tmp_path / "half"))
    assert "rounds float32 weights, and these are bfloat16; set dtype: float32" in refusal(wanted)
    assert load_pipeline("mine", replace(wanted, dtype="float32")).model.dtype == torch.float32


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is an extra")
@pytest.mark.usefixtures("with_cuda")
def test_int4_is_for_cuda_and_bfloat16(settings: Settings) -> None:
    """The one format whose kernel is torch's own, in the one number format that it takes."""
    wanted = replace(settings, quantisation="int4", device="auto")
    config = quantising.quantisation_config(wanted, transformers.BertConfig())
    assert config.quant_type.group_size == 32
    assert config.quant_type.int4_packing_format == "tile_packed_to_4d"
    assert quantising.compute_dtype(wanted) == torch.bfloat16
    with pytest.raises(Refusal, match="int4 computes in bfloat16, and dtype is float32"):
        quantising.quantisation_config(replace(wanted, dtype="float32"), transformers.BertConfig())


@pytest.mark.usefixtures("with_cuda")
def test_bitsandbytes_is_told_what_to_do(settings: Settings) -> None:
    """Eight bits, or four in the format of normal floats, computed in the queue's dtype."""
    wanted = replace(settings, quantisation="bnb-int8", device="cuda:1")
    config = quantising.quantisation_config(wanted, transformers.BertConfig())
    assert (config.load_in_8bit, config.load_in_4bit) == (True, False)
    wanted = replace(wanted, quantisation="bnb-nf4")
    config = quantising.quantisation_config(wanted, transformers.BertConfig())
    assert (config.load_in_4bit, config.bnb_4bit_quant_type) == (True, "nf4")
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    halves = quantising.quantisation_config(replace(wanted, dtype="float16"), transformers.BertConfig())
    assert halves.bnb_4bit_compute_dtype == torch.float16


@pytest.mark.usefixtures("with_cuda")
def test_weights_are_rounded_where_they_stay(settings: Settings) -> None:
    """On a GPU from_pretrained puts them there; a device map stays as it is; on the CPU nothing is said."""
    rounded = replace(settings, quantisation="int8")
    assert placing.placement(rounded) == {}
    assert placing.placement(replace(rounded, device="auto")) == {"device_map": {"": "cuda:0"}}
    assert placing.placement(replace(rounded, device="cuda:1")) == {"device_map": {"": "cuda:1"}}
    assert placing.placement(replace(rounded, device="auto", device_map="balanced")) == {"device_map": "balanced"}
    assert placing.placement(replace(settings, device="cuda")) == {}


def test_missing_packages_are_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a quantisation needs is named with how to install it."""
    monkeypatch.setattr(quantising, "find_spec", lambda _: None)
    text = refusal(replace(settings, quantisation="int8"), MissingExtra)
    assert text.endswith('quantisation int8 needs torchao, which isn\'t installed; pip install "pipemill[quantised]"')
    text = refusal(replace(settings, quantisation="bnb-nf4"), MissingExtra)
    assert text.endswith("quantisation bnb-nf4 needs bitsandbytes, which isn't installed; pip install bitsandbytes")


@pytest.mark.parametrize("quantisation", ["int4", "bnb-int8", "bnb-nf4"])
def test_kernels_of_cuda(settings: Settings, monkeypatch: pytest.MonkeyPatch, quantisation: str) -> None:
    """What runs on CUDA devices only is refused where there is none, before anything is loaded."""
    monkeypatch.setattr(quantising, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = refusal(replace(settings, quantisation=quantisation))
    assert f"quantisation {quantisation} runs on CUDA devices only; use int8" in text


def test_a_model_saved_quantised(settings: Settings) -> None:
    """It isn't rounded twice, and the package that it needs is asked for."""
    path = Path(settings.model or "") / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    path.write_text(json.dumps(config))
    text = refusal(replace(settings, quantisation="int8"))
    assert "its weights were saved quantised; remove quantisation" in text
    assert "it was saved quantised: install the package that the cause names" in refusal(settings)


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (ImportError("Using `bitsandbytes` 8-bit quantization requires bitsandbytes"), "it was saved quantised"),
        (ImportError("DetrForObjectDetection requires the timm library but it was not found"), "pip install timm"),
        (RuntimeError("operator torchvision::nms does not exist"), "install the torchvision"),
        (ImportError("LayoutLMv2 requires the PyTesseract library"), "pip install pytesseract"),
        (ImportError("TapasTokenizer requires the pandas library"), 'pip install "pipemill[tables]"'),
        (ImportError("VideoClassificationPipeline requires the PyAV library"), 'pip install "pipemill[worker-media]"'),
        (ValueError("Couldn't instantiate the backend tokenizer: sentencepiece"), "its tokenizer needs"),
        (ModuleNotFoundError("No module named 'einops'"), "install the package that the cause names"),
        (ValueError("something else"), "try it alone"),
    ],
)
def test_foreign_errors_are_explained(settings: Settings, error: Exception, mend: str) -> None:
    """What a library says leads to what to do."""
    assert explain(error, settings).mend.startswith(mend)
