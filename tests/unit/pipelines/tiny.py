"""Tiny random models and their tokenizers, built in memory, and a driver that batches as wildly as the engine may."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pipemill.catalogue.model import BatchSettings, LimitSettings, UrlSettings
from pipemill_worker.pipelines.runner import TransformersRunner
from pipemill_worker.seams import Item, Prepared

#: The text tasks, and transformers' class of a model for each.
MODEL_CLASSES: Final[Mapping[str, type[Any]]] = {
    "feature-extraction": transformers.AutoModel,
    "fill-mask": transformers.AutoModelForMaskedLM,
    "text-classification": transformers.AutoModelForSequenceClassification,
    "text-generation": transformers.AutoModelForCausalLM,
    "token-classification": transformers.AutoModelForTokenClassification,
    "zero-shot-classification": transformers.AutoModelForSequenceClassification,
}

WORDS: Final = (
    "river",
    "stone",
    "cloud",
    "winter",
    "music",
    "garden",
    "letter",
    "window",
    "bridge",
    "market",
    "silver",
    "forest",
    "candle",
    "harbour",
    "engine",
    "paper",
    "mountain",
    "clock",
    "orange",
    "travel",
)

LABELS: Final = ["sport", "politics", "science", "weather", "cooking"]

#: One size for every model type; configurations ignore what they don't know.
SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "embedding_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "type_vocab_size": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}

#: Configurations that call their sizes otherwise.
OTHER_SIZES: Final[dict[str, dict[str, Any]]] = {
    "albert": {"embedding_size": 16},
    "bart": {"d_model": 32, "init_std": 0.3},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 64},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 32,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "conv_kernel_size": 3,
        "conv_act": "gelu",
        "position_biased_input": False,
    },
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37},
    "esm": {"position_embedding_type": "rotary"},
    "eurobert": {"num_key_value_heads": 2, "mask_token_id": 5},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "mbart": {"d_model": 32, "init_std": 0.3},
    "mistral": {"sliding_window": 8},
    "mobilebert": {"initializer_range": 0.1, "intra_bottleneck_size": 16, "embedding_size": 16, "true_hidden_size": 16},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 37},
    "ultrabert": {
        "num_key_value_heads": 2,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
        "prediction_head_size": 32,
    },
}
for _encoder_decoder in ("bart", "mbart"):
    OTHER_SIZES[_encoder_decoder] |= {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 37))
    }

#: Token ids; RoBERTa and its kin count positions from behind the padding's id, so it is neither 0 nor the end.
PAD, UNK, CLS, SEP, MASK = range(1, 6)


#: Its constructor has no hints.
_Fast: Final[Any] = PreTrainedTokenizerFast


def wordpiece_tokenizer(**options: Any) -> Any:
    """A tokenizer as BERT's: words, subwords behind ``##``, ``[CLS]`` and ``[SEP]`` around, pairs by segment."""
    special = ["[unused]", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    vocabulary = [*special, *WORDS, *LABELS, *letters, *(f"##{letter}" for letter in letters), "this", "is", "example"]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token=special[UNK]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    settings: dict[str, Any] = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "eos_token": "[SEP]",
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask", "token_type_ids"],
        **options,
    }
    return _Fast(tokenizer_object=tokenizer, **settings)


def byte_tokenizer(**options: Any) -> Any:
    """A tokenizer as GPT-2's: bytes, nothing around, no padding unless asked for."""
    vocabulary = ["<|end|>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    settings: dict[str, Any] = {
        "eos_token": "<|end|>",
        "bos_token": "<|end|>",
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"],
        **options,
    }
    return _Fast(tokenizer_object=tokenizer, **settings)


def tiny_model(task: str, model_type: str, tokenizer: Any, **options: Any) -> Any:
    """A random model for the task, with logits far enough apart not to tie."""
    torch.manual_seed(7)
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    if task == "zero-shot-classification":
        names = ["contradiction", "neutral", "entailment"]
    settings = {
        **SIZES,
        **OTHER_SIZES.get(model_type, {}),
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        **options,
    }
    config = transformers.AutoConfig.for_model(model_type, **settings)
    return MODEL_CLASSES[task].from_config(config).eval()


def tiny_pipeline(task: str, model_type: str = "bert", tokenizer: Any = None, **options: Any) -> Any:
    """A transformers pipeline over a tiny model on the CPU."""
    tokenizer = wordpiece_tokenizer() if tokenizer is None else tokenizer
    build: Any = transformers.pipeline
    return build(task, model=tiny_model(task, model_type, tokenizer, **options), tokenizer=tokenizer, device="cpu")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A queue's settings as far as a runner asks for them."""

    task: str
    model: str | None = "tiny"
    revision: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    device_map: str | None = None
    quantisation: str | None = None
    compile: bool = False
    adapter: str | None = None
    adapter_revision: str | None = None
    trust_remote_code: bool = False
    engine: Literal["exact", "continuous", "vllm"] = "exact"
    vllm_python: str | None = None
    batch: BatchSettings = field(default_factory=BatchSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    urls: UrlSettings | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def unchecked(task: str, parameters: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - the validator's signature
    """Parameters as they are: what may be given is tested elsewhere."""
    return dict(parameters)


def runner_of(task: str, pipe: Any, **parameters: Any) -> TransformersRunner:
    """A runner over a pipeline, with a queue's default parameters."""
    return TransformersRunner("tiny", pipe, Settings(task=task, parameters=parameters), validate=unchecked)


def padding_runner_of(task: str, pipe: Any) -> TransformersRunner:
    """A runner that pads where it could pack."""
    settings = Settings(task=task, batch=BatchSettings(packing=False))
    return TransformersRunner("tiny", pipe, settings, validate=unchecked)


def sentence(rng: random.Random, low: int = 1, high: int = 40) -> str:
    """A text of random words."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


@dataclass
class Run:
    """What a batched run gave."""

    answers: list[Any]
    #: Items of each forward pass.
    batches: list[int]


def run_batched(runner: TransformersRunner, jobs: Sequence[tuple[Any, Mapping[str, Any]]], most: int = 16) -> Run:
    """Prepare all jobs, shuffle their items, run them in batches as their group keys allow, finish all jobs."""
    return finish_batched(runner, [runner.prepare(inputs, parameters) for inputs, parameters in jobs], most)


def finish_batched(runner: TransformersRunner, prepared: Sequence[Prepared], most: int = 16) -> Run:
    """Run the items of prepared jobs in shuffled batches of at most ``most``."""
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    items = [item for job in prepared for item in job.items]
    for number, item in enumerate(random.Random(3).sample(items, len(items))):
        groups[("alone", number) if item.group is None else item.group].append(item)
    outputs: dict[int, Any] = {}
    batches = []
    for group in groups.values():
        for start in range(0, len(group), most):
            batch = group[start : start + most]
            outputs.update(zip(map(id, batch), runner.forward(batch), strict=True))
            batches.append(len(batch))
    answers = [runner.finish(job, [outputs[id(item)] for item in job.items]) for job in prepared]
    return Run(answers, batches)


def assert_same(answer: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Equal in all that is discrete, within the tolerance where it is a float."""
    if isinstance(expected, dict):
        assert isinstance(answer, dict)
        assert list(answer) == list(expected)
        for key, value in expected.items():
            assert_same(answer[key], value, tolerance)
    elif isinstance(expected, list | tuple):
        assert isinstance(answer, list)
        assert len(answer) == len(expected)
        for mine, theirs in zip(answer, expected, strict=True):
            assert_same(mine, theirs, tolerance)
    elif hasattr(expected, "dtype") or isinstance(expected, float):
        assert type(answer) is float
        assert abs(answer - float(expected)) <= tolerance
    else:
        assert type(answer) is type(expected)
        assert answer == expected
