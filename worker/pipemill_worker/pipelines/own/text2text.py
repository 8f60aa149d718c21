"""Text to text by encoder-decoder models: ``text2text-generation``, ``summarization`` and ``translation``.

Parameters and answers are those of transformers 4, which had these tasks last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from transformers import GenerationConfig

from pipemill_worker.pipelines.own.base import Pipeline, StageParameters, TextOnly, a_text, given

_Config: Final[Any] = GenerationConfig  # Its constructor has no hints.

#: What holds where neither the caller nor the model says otherwise, as in transformers 4.
_DEFAULTS: Final = _Config(max_new_tokens=256, num_beams=4)

#: A length in a model's settings gives way to the same bound in new tokens from the caller.
_SAME_BOUND: Final = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}


class Text2TextGenerationPipeline(TextOnly, Pipeline):  # type: ignore[misc]  # its base has no hints
    """A text gives ``[{"generated_text": …}]``; a list gives one such dict per text.

    With ``num_return_sequences`` above 1, each text of a list gives a list of dicts. Parameters beside those of
    ``generate``: ``truncation`` cuts a text to the tokenizer's ``model_max_length`` (default: never cut),
    ``clean_up_tokenization_spaces`` removes spaces before punctuation.
    """

    _pipeline_calls_generate = True
    _default_generation_config = _DEFAULTS

    #: What the answer is called: ``<name>_text``.
    answer_name: ClassVar[str] = "generated"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._task_settings, prefix = _split_prefix(self._settings_of(self.task))
        if prefix is not None:
            self.prefix = prefix

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Generate a text for each text."""
        answers = super().__call__(inputs, **kwargs)
        if isinstance(inputs, list) and all(len(answer) == 1 for answer in answers):
            return [answer[0] for answer in answers]
        return answers

    def _sanitize_parameters(
        self,
        *,
        truncation: bool | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        **generate_kwargs: Any,
    ) -> StageParameters:
        if generate_kwargs.get("stop_strings") is not None:
            generate_kwargs["tokenizer"] = self.tokenizer
        return (
            given(truncation=truncation),
            generate_kwargs,
            given(clean_up_tokenization_spaces=clean_up_tokenization_spaces),
        )

    def preprocess(self, text: str, *, truncation: bool = False) -> dict[str, Any]:
        """Token ids of the prefix, if the model has one, and the text."""
        return self._tokenize(text, self.prefix or "", truncation=truncation)

    def _forward(self, model_inputs: Mapping[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        rows = model_inputs["input_ids"].shape[0]
        generated = self.model.generate(**{**model_inputs, **self._prepare_generate_kwargs(generate_kwargs)})
        ids = getattr(generated, "sequences", generated)  # A caller may have asked for more than the ids.
        return {"output_ids": ids.reshape(rows, -1, ids.shape[-1])}

    def postprocess(
        self, model_outputs: Mapping[str, Any], *, clean_up_tokenization_spaces: bool = False
    ) -> list[dict[str, str]]:
        """One dict per returned sequence."""
        return [
            {
                f"{self.answer_name}_text": self.tokenizer.decode(
                    ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean_up_tokenization_spaces
                )
            }
            for ids in model_outputs["output_ids"][0]
        ]

    def _prepare_generate_kwargs(self, generate_kwargs: dict[str, Any], **overrides: Any) -> dict[str, Any]:
        """The settings of a call: its own, over the pipeline's, over the model's for this task, over the model's."""
        if "generation_config" not in generate_kwargs:
            generate_kwargs = _beneath(self._task_settings, {**self._generate_kwargs, **generate_kwargs})
        settings: dict[str, Any] = super()._prepare_generate_kwargs(generate_kwargs, **overrides)
        return settings

    def _settings_of(self, task: str) -> dict[str, Any]:
        """What the model's configuration sets for one task: generation settings and a prefix."""
        by_task = getattr(self.model.config, "task_specific_params", None) or {}
        return dict(by_task.get(task, {}))

    def _tokenize(self, text: str, prefix: str, *, truncation: bool) -> dict[str, Any]:
        inputs = dict(self.tokenizer(prefix + a_text(text), truncation=truncation, return_tensors="pt"))
        inputs.pop("token_type_ids", None)  # No encoder-decoder takes them.
        return inputs


class SummarizationPipeline(Text2TextGenerationPipeline):
    """As its base, with ``summary_text``."""

    answer_name = "summary"


class TranslationPipeline(Text2TextGenerationPipeline):
    """As its base, with ``translation_text``; parameters ``src_lang`` and ``tgt_lang`` where a model has languages.

    Multilingual tokenizers (mBART, NLLB, M2M100) need both, in their own codes. A model whose configuration has
    ``translation_xx_to_yy`` settings (T5) takes the prefix and settings of the pair. Other models ignore them.
    """

    answer_name = "translation"

    def _sanitize_parameters(
        self,
        *,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        **parameters: Any,
    ) -> StageParameters:
        preprocess, forward, postprocess = super()._sanitize_parameters(**parameters)
        preprocess |= given(src_lang=src_lang, tgt_lang=tgt_lang)
        set_before = getattr(self, "_preprocess_params", {})
        pair, _ = self._pair({**set_before, **preprocess})
        return preprocess, _beneath(pair, forward), postprocess

    def preprocess(
        self, text: str, *, truncation: bool = False, src_lang: str | None = None, tgt_lang: str | None = None
    ) -> dict[str, Any]:
        """Token ids of the text, marked with its language or begun with the pair's prefix."""
        if hasattr(self.tokenizer, "_build_translation_inputs"):
            return self._tokenize_between(text, src_lang, tgt_lang, truncation=truncation)
        _, prefix = self._pair({"src_lang": src_lang, "tgt_lang": tgt_lang})
        return self._tokenize(text, self.prefix or "" if prefix is None else prefix, truncation=truncation)

    def _pair(self, languages: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """The model's settings and prefix for a pair of languages; empty if it knows no pairs."""
        source, target = languages.get("src_lang"), languages.get("tgt_lang")
        known = [name for name in getattr(self.model.config, "task_specific_params", None) or {} if _is_pair(name)]
        if not known or source is None or target is None:
            return {}, None
        name = f"translation_{source}_to_{target}"
        if name not in known:
            raise ValueError(f"the model has no {name[:80]!r}: choose src_lang and tgt_lang from {', '.join(known)}")
        return _split_prefix(self._settings_of(name))

    def _tokenize_between(
        self, text: str, source: str | None, target: str | None, *, truncation: bool
    ) -> dict[str, Any]:
        if source is None or target is None:
            raise ValueError("the model translates between many languages: give src_lang and tgt_lang in its own codes")
        for language in (source, target):
            if not self._knows(language):
                raise ValueError(f"the model has no language {language[:80]!r}: see the model's card for its codes")
        return dict(
            self.tokenizer._build_translation_inputs(  # noqa: SLF001  # made for this pipeline, without a public name
                a_text(text), return_tensors="pt", src_lang=source, tgt_lang=target, truncation=truncation
            )
        )

    def _knows(self, language: str) -> bool:
        """Whether the tokenizer has a token for the language, as such (mBART, NLLB) or as ``__xx__`` (SeamlessM4T)."""
        known = getattr(self.tokenizer, "lang_code_to_id", None) or self.tokenizer.get_added_vocab()
        return language in known or f"__{language}__" in known


def _is_pair(task: str) -> bool:
    return task.startswith("translation_") and "_to_" in task


def _split_prefix(settings: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    return {name: value for name, value in settings.items() if name != "prefix"}, settings.get("prefix")


def _beneath(settings: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """``chosen`` over ``settings``."""
    return {name: value for name, value in settings.items() if _SAME_BOUND.get(name) not in chosen} | dict(chosen)
