"""What transformers' ``generate`` makes of a prompt before it writes the first token, taken from itself."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pipemill_worker.pipelines.writing.draft import Draft, Source


@dataclass(slots=True, eq=False)
class Past:
    """How far a prompt has come. Whisper's ``generate`` writes in several loops, a window of the sound each."""

    #: What each loop that has ended wrote: [rows, tokens].
    written: list[torch.Tensor] = field(default_factory=list)
    #: The languages heard, as tokens, once they were listened for.
    languages: torch.Tensor | None = None
    #: What was listened to, and what the encoder made of it.
    heard: tuple[torch.Tensor, Any] | None = None

    def take_encoded(self, source: Source) -> Any:
        """What an encoder makes of a source, if it was heard already, else ``None``; it is kept for one source only."""
        heard, self.heard = self.heard, None
        sound = source.get("input_features")
        if heard is None or sound is None or not torch.equal(sound, heard[0]):
            return None
        return heard[1]


class _Drafted(Exception):
    def __init__(self, draft: Draft | None) -> None:
        super().__init__()
        self.draft = draft


class _Drafting:
    """Mixed in front of a model's class: ends ``generate`` where a loop would begin that wasn't written yet."""

    config: Any
    #: ``None`` where the model mayn't be run: it belongs to another thread.
    past: Past | None
    #: Loops that were gone through.
    loops: int

    def _sample(  # noqa: PLR0913, PLR0917 - transformers' signature
        self,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        synced_gpus: bool = False,  # noqa: ARG002, FBT001, FBT002 - as above
        streamer: Any = None,  # noqa: ARG002 - as above
        **model_kwargs: Any,
    ) -> torch.Tensor:
        self.loops += 1
        if self.past is not None and self.loops <= len(self.past.written):
            return self.past.written[self.loops - 1]
        model_kwargs.pop("tokenizer", None)  # It was for what stops at a text.
        draft = Draft(input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs)
        if isinstance(source := model_kwargs.get("encoder_outputs"), Source):
            source = Source({name: _first(value) for name, value in source.items()})  # All rows are given the same.
            ids = source.get("input_ids")
            draft.source = source
            draft.source_tokens = self.config.max_source_positions if ids is None else ids.shape[1]
            draft.encoded = None if self.past is None else self.past.take_encoded(source)
        raise _Drafted(draft)

    _beam_search = _sample

    def _assisted_decoding(self, *_: Any, **__: Any) -> torch.Tensor:
        raise _Drafted(None)

    def get_encoder(self, *arguments: Any, **named: Any) -> Any:
        return _Listening(super().get_encoder(*arguments, **named))  # type: ignore[misc]  # the class it is mixed into has it

    def detect_language(
        self, input_features: Any = None, encoder_outputs: Any = None, generation_config: Any = None, **named: Any
    ) -> torch.Tensor:
        past = self.past
        if past is None:  # Any will do to see what is asked for.
            return torch.tensor([next(iter(generation_config.lang_to_id.values()))])
        if past.languages is None:
            given = {"generation_config": generation_config, **named}
            if encoder_outputs is None:
                sound = input_features[:, :, : named["num_segment_frames"]]
                encoder_outputs = super().get_encoder()(sound)  # type: ignore[misc]  # as above
                past.heard = sound, encoder_outputs
            past.languages = super().detect_language(encoder_outputs=encoder_outputs, **given)  # type: ignore[misc]  # as above
        return past.languages

    def _supports_mm_encoder_outputs(self) -> bool:
        return False  # Images are looked at in the first pass, by the thread that owns the device.


def _first(value: Any) -> Any:
    return value[:1] if isinstance(value, torch.Tensor) else value


class _Listening:
    """Stands for an encoder: gives back what it is given to read, which the thread that owns the device will."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def __call__(self, **inputs: Any) -> Source:
        return Source(inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)


@functools.cache
def _drafting_class(model_class: Any) -> Any:
    return type(f"Drafting{model_class.__name__}", (_Drafting, model_class), {"forward": _signed(model_class.forward)})


def _signed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A model's ``forward`` that knows its signature: ``generate`` asks for it seven times, a quarter of its start."""

    @functools.wraps(forward)
    def signed(*arguments: Any, **named: Any) -> Any:
        return forward(*arguments, **named)

    signed.__dict__["__signature__"] = inspect.signature(forward)
    return signed


def _class_of(model: Any) -> Any:
    return type(model)


class Drafter:
    """One thread's way through a pipeline's ``forward``, up to its model's loop and on from behind it."""

    def __init__(self, pipe: Any) -> None:
        model: Any = object.__new__(_drafting_class(_class_of(pipe.model)))
        model.__dict__.update(pipe.model.__dict__, past=None, loops=0)
        model.__dict__.pop("generate", None)  # What watches each token of a pass has no part in this.
        self._model = model
        self._pipe: Any = copy.copy(pipe)
        self._pipe.model = model

    def draft(
        self, model_inputs: Mapping[str, Any], parameters: Mapping[str, Any], past: Past | None = None
    ) -> Draft | None:
        """What ``generate`` would start from; ``None`` for ways to write that aren't one token after the other.

        Without a ``past`` the model isn't run: what it would have been asked for, such as a language, is made up.

        Raises
        ------
        ValueError, TypeError
            When ``generate`` refuses the parameters.

        """
        try:
            self._run(model_inputs, parameters, past)
        except _Drafted as drafted:
            return drafted.draft
        return None

    def outputs(self, model_inputs: Mapping[str, Any], parameters: Mapping[str, Any], past: Past) -> Any:
        """What the pipeline's ``forward`` gives when its model writes so; a ``Draft`` if there is more to write."""
        try:
            return self._run(model_inputs, parameters, past)
        except _Drafted as drafted:
            return drafted.draft

    def _run(self, model_inputs: Mapping[str, Any], parameters: Mapping[str, Any], past: Past | None) -> Any:
        self._model.__dict__.update(past=past, loops=0)
        try:
            return self._pipe.forward(dict(model_inputs), **parameters)
        finally:
            self._model.__dict__["past"] = None
