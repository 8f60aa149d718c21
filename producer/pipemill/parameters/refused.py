"""Parameters that pipelines know and that no job may set, each with the reason or the other way."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_CODE = "it runs code that the operator didn't choose"
_MODEL = "the catalogue names each queue's model"
_DEVICE = "the catalogue says where and how the model runs"
_BATCH = "the worker forms the batches; their limits stand in the catalogue under batch"
_OBJECT = "it is an object, which JSON can't carry"
_FETCH = "the worker fetches nothing for a job"
_TEXT_ONLY = "answers are JSON, without the model's inner values"
_INPUTS = "it belongs in the job's inputs"
_CACHE = "the worker manages the model's cache"
_PREPARED = "the worker tokenizes the job's inputs itself"

#: Name → why not, or what instead.
REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("trust_remote_code", "custom_generate", "code_revision", "pipeline_class"), _CODE),
        **dict.fromkeys(("model", "revision", "config", "framework", "model_kwargs", "task"), _MODEL),
        **dict.fromkeys(("device", "device_map", "dtype", "torch_dtype", "compile_config"), _DEVICE),
        **dict.fromkeys(("batch_size", "num_workers", "padding", "pad_to_multiple_of"), _BATCH),
        **dict.fromkeys(("tokenizer", "feature_extractor", "image_processor", "processor", "use_fast"), _MODEL),
        **dict.fromkeys(("assistant_model", "assistant_tokenizer", "prompt_lookup_num_tokens"), _MODEL),
        **dict.fromkeys(("streamer", "logits_processor", "prefix_allowed_tokens_fn", "constraints"), _OBJECT),
        **dict.fromkeys(("token", "use_auth_token", "cache_dir", "local_files_only", "timeout"), _FETCH),
        **dict.fromkeys(("return_tensors", "return_type", "return_dict_in_generate", "output_scores"), _TEXT_ONLY),
        **dict.fromkeys(("output_logits", "output_attentions", "output_hidden_states"), _TEXT_ONLY),
        **dict.fromkeys(("inputs", "text_inputs", "text_pair", "sequences", "tools", "documents"), _INPUTS),
        **dict.fromkeys(("use_cache", "past_key_values", "cache_implementation", "cache_config"), _CACHE),
        **dict.fromkeys(("input_ids", "attention_mask", "inputs_embeds", "offset_mapping"), _PREPARED),
        "generation_config": "give its fields one by one, such as max_new_tokens",
        "generate_kwargs": "give its fields one by one, such as max_new_tokens",
        "stopping_criteria": "use stop_sequence",
        "stop_strings": "use stop_sequence",
        "max_time": "use max_new_tokens",
        "return_text": "use return_full_text",
        "chat_template": "the model's own is used; it is a program",
        "tokenizer_encode_kwargs": "use truncation, max_length and add_special_tokens",
        "tesseract_config": "it becomes command-line flags",
        "seed": "draws are not repeatable yet; use do_sample: false for a repeatable answer",
    }
)
