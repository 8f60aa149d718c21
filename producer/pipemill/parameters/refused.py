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
_FETCH = "the worker fetches no model for a job"
_JSON_ONLY = "answers are JSON, without the model's inner values"
_INPUTS = "it belongs in the job's inputs"
_CACHE = "the worker manages the model's cache"
_PREPARED = "the worker tokenizes the job's inputs itself"
_PROCESSING = "inputs are prepared as the model's own processor has it"

#: Name → why not, or what instead.
REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("trust_remote_code", "custom_generate", "code_revision", "pipeline_class"), _CODE),
        # transformers moved these searches to repositories of their own, whose code it would run.
        **dict.fromkeys(("num_beam_groups", "diversity_penalty", "penalty_alpha", "dola_layers"), _CODE),
        **dict.fromkeys(("constraints", "force_words_ids"), _CODE),
        **dict.fromkeys(("model", "revision", "config", "framework", "model_kwargs", "decoder"), _MODEL),
        **dict.fromkeys(("tokenizer", "feature_extractor", "image_processor", "processor", "use_fast"), _MODEL),
        **dict.fromkeys(("assistant_model", "assistant_tokenizer", "assistant_early_exit", "is_assistant"), _MODEL),
        **dict.fromkeys(("assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind"), _MODEL),
        **dict.fromkeys(("assistant_ensemble_weight", "num_assistant_tokens_schedule", "speculation_type"), _MODEL),
        **dict.fromkeys(("num_assistant_tokens", "prompt_lookup_num_tokens", "max_matching_ngram_size"), _MODEL),
        **dict.fromkeys(("use_mtp", "vocoder", "noise_scheduler", "decoder_start_token_id", "bos_token_id"), _MODEL),
        **dict.fromkeys(("pad_token_id", "transformers_version"), _MODEL),
        **dict.fromkeys(("device", "device_map", "dtype", "torch_dtype", "compile_config"), _DEVICE),
        **dict.fromkeys(("disable_compile", "synced_gpus", "attn_implementation"), _DEVICE),
        **dict.fromkeys(("batch_size", "num_workers", "padding", "pad_to_multiple_of", "padding_side"), _BATCH),
        **dict.fromkeys(("continuous_batching_config", "low_memory"), _BATCH),
        **dict.fromkeys(("streamer", "logits_processor", "prefix_allowed_tokens_fn", "watermarking_config"), _OBJECT),
        **dict.fromkeys(("token_healing", "speaker_embeddings", "prompt_ids", "generator"), _OBJECT),
        **dict.fromkeys(("token", "use_auth_token", "cache_dir", "local_files_only"), _FETCH),
        **dict.fromkeys(("return_tensors", "return_type", "return_dict_in_generate", "output_scores"), _JSON_ONLY),
        **dict.fromkeys(("output_logits", "output_attentions", "output_hidden_states"), _JSON_ONLY),
        **dict.fromkeys(("return_mm_token_type_ids", "return_text_replacement_offsets"), _JSON_ONLY),
        **dict.fromkeys(("inputs", "text_inputs", "text", "text_pair", "text_target", "text_pair_target"), _INPUTS),
        **dict.fromkeys(("sequences", "tools", "documents", "table", "query", "question", "questions"), _INPUTS),
        **dict.fromkeys(("image", "images", "videos", "audio", "audios", "word_boxes", "assets"), _INPUTS),
        **dict.fromkeys(("use_cache", "past_key_values", "cache_implementation", "cache_config"), _CACHE),
        **dict.fromkeys(("max_cache_len", "prefill_chunk_size"), _CACHE),
        **dict.fromkeys(("input_ids", "attention_mask", "inputs_embeds", "offset_mapping"), _PREPARED),
        **dict.fromkeys(("return_token_type_ids", "return_attention_mask", "return_overflowing_tokens"), _PREPARED),
        **dict.fromkeys(("return_special_tokens_mask", "return_offsets_mapping", "return_length"), _PREPARED),
        **dict.fromkeys(("processor_kwargs", "image_processor_kwargs", "preprocess_params"), _PROCESSING),
        **dict.fromkeys(("text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs"), _PROCESSING),
        "eos_token_id": "the model's own is used; to end at another text, use stop_sequence",
        "exponential_decay_length_penalty": "use max_new_tokens, or length_penalty with num_beams",
        "decoder_kwargs": "the decoder's own settings are used",
        "generation_config": "give its fields one by one, such as max_new_tokens",
        "stopping_criteria": "use stop_sequence",
        "stop_strings": "use stop_sequence",
        "max_time": "use max_new_tokens",
        "sequence_bias": "use bad_words_ids",
        "return_text": "use return_full_text",
        "prefix_length": "it follows from prefix",
        "text_queries": "use candidate_labels",
        "parameters": "give each parameter by its own name",
        "timeout": "how long a fetch may take stands in the catalogue under urls",
        "load_audio_from_video": "give the sound as an input of its own",
        "ignore_warning": "it only silences a warning in the worker's log",
        "verbose": "it only changes the worker's log",
        "chat_template": "the model's own is used; it is a program",
        "tokenizer_encode_kwargs": "use truncation, max_length and add_special_tokens",
        "tesseract_config": "it becomes command-line flags",
    }
)

_ONE_BY_ONE = MappingProxyType({"generate_kwargs": "give its fields one by one, such as max_new_tokens"})

#: Task → name → why not there, though other tasks take it.
REFUSED_BY_TASK: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "document-question-answering": MappingProxyType({"max_question_len": "the pipeline itself fails on it"}),
        "summarization": _ONE_BY_ONE,
        "text-classification": MappingProxyType(
            {
                "add_special_tokens": "the model was trained with them",
                "is_split_into_words": "give each text as a string",
                "stride": "a text is judged as a whole; use truncation where it is too long",
                "tokenizer_kwargs": "give truncation and max_length by themselves",
            }
        ),
        "text-generation": _ONE_BY_ONE,
        "text2text-generation": _ONE_BY_ONE,
        "translation": _ONE_BY_ONE,
        "zero-shot-image-classification": MappingProxyType({"tokenizer_kwargs": "the pipeline itself ignores it"}),
    }
)


def reason_against(task: str, name: str) -> str | None:
    """Why no job of a task may set a parameter that pipelines know; None when there is no such reason."""
    return REFUSED_BY_TASK.get(task, {}).get(name) or REFUSED.get(name)
