"""Parameters of the tasks that hear or speak."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipemill.parameters.base import (
    Finite,
    Name,
    Parameters,
    Ranked,
    ScoreFunction,
    Share,
    about,
    left_out,
    repeatable,
)
from pipemill.parameters.generation import LEAST_DIVISOR, SETTINGS, Generation
from pipemill.parameters.labels import LabelList, Template, candidate_labels, hypothesis_template
from pipemill.validation import mistaken

#: Length of one chunk, in seconds.
MAX_CHUNK_SECONDS: Final = 600
#: How much of a chunk may overlap its neighbours: what overlaps is computed again with each chunk.
MAX_STRIDE_SHARE: Final = 0.9

_Stride = Annotated[Finite, Field(ge=0, le=MAX_CHUNK_SECONDS)]


def _no_crumbs(seconds: float) -> float:
    if 0 < seconds < 1:
        raise mistaken("chunks of less than a second", "give 0 for no chunks, or at least 1")
    return seconds


def _none_or_enough(temperature: float) -> float:
    if 0 < temperature < LEAST_DIVISOR:
        raise mistaken(f"less than {LEAST_DIVISOR}", "give 0 for no chance at all, or more")
    return temperature


_Temperature = Annotated[Finite, Field(ge=0, le=10), AfterValidator(_none_or_enough)]
_Chunk = Annotated[
    Finite,
    Field(ge=0, le=MAX_CHUNK_SECONDS),
    AfterValidator(_no_crumbs),
    Field(
        json_schema_extra={
            "allowed": f"0 or a number from 1 to {MAX_CHUNK_SECONDS}",
            "anyOf": [{"const": 0}, {"minimum": 1}],
        }
    ),
]


class AudioClassification(Parameters):
    """Parameters of ``audio-classification``."""

    top_k: Ranked | None = left_out("How many labels to return, best first; null, or left out, returns all.")
    function_to_apply: ScoreFunction = left_out("What turns the logits into scores; left out, it is softmax.")


class ZeroShotAudioClassification(Parameters):
    """Parameters of ``zero-shot-audio-classification``."""

    candidate_labels: LabelList = candidate_labels()
    hypothesis_template: Template = hypothesis_template()


class SpeechSettings(Generation):
    """Settings of the generation of ``automatic-speech-recognition``, for models that write, such as Whisper."""

    language: Name = left_out("The language that is spoken, such as en or german; left out, the model finds out.")
    task: Literal["transcribe", "translate"] = left_out("translate writes English, whatever is spoken.")
    tgt_lang: Name = left_out("The language to write, for models that translate into several.")
    # Whisper alone takes several, and 0.
    temperature: _Temperature | Annotated[list[_Temperature], Field(min_length=1, max_length=16)] = left_out(  # type: ignore[assignment]  # wider than the other tasks' on purpose
        "How even the chances are made before drawing; Whisper tries those of a list one after the other while an "
        "answer looks bad.",
    )
    condition_on_prev_tokens: bool = left_out("Show the model what it wrote of the sound so far.")
    prompt_condition_type: Literal["first-segment", "all-segments"] = left_out("Which parts of a sound get the prompt.")
    compression_ratio_threshold: Annotated[Finite, Field(ge=0, le=100)] = left_out(
        "An answer that zips better than this looks bad."
    )
    logprob_threshold: Annotated[Finite, Field(ge=-100, le=0)] = left_out(
        "An answer of which the model is less sure, as a mean log probability, looks bad."
    )
    no_speech_threshold: Share = left_out("Probability of silence from which an answer that looks bad is dropped.")


class AutomaticSpeechRecognition(Parameters):
    """Parameters of ``automatic-speech-recognition``."""

    chunk_length_s: _Chunk = left_out("Cut a sound into chunks of so many seconds; 0 does not.")
    stride_length_s: _Stride | Annotated[list[_Stride], Field(min_length=2, max_length=2)] = left_out(
        "Seconds by which chunks overlap, at each side or as [left, right]; left out, a sixth of the chunk.",
        json_schema_extra={"allowed": f"a number from 0 to {MAX_CHUNK_SECONDS}, or a list of two: [left, right]"},
    )
    return_timestamps: bool | Literal["char", "word"] = left_out(
        "When each part was said: segments (true) or words by Whisper, words or characters by CTC models."
    )
    return_language: bool = left_out("Return the language too; Whisper only.")
    generate_kwargs: SpeechSettings = left_out("How the text is written.", json_schema_extra=SETTINGS)
    seed: int = repeatable()

    @model_validator(mode="after")
    def _chunks_go_on(self) -> Self:
        chunk, stride = self.chunk_length_s, self.stride_length_s
        if chunk and stride:
            both = sum(stride) if isinstance(stride, list) else 2 * stride
            if both > MAX_STRIDE_SHARE * chunk:
                raise about(
                    "stride_length_s",
                    f"{both:g} s of both sides overlap, of chunks of {chunk:g} s",
                    f"leave a tenth of the chunk free: {MAX_STRIDE_SHARE * chunk:g} s together",
                )
        return self


class SoundSettings(Generation):
    """Settings of the generation of ``text-to-audio``."""

    tgt_lang: Name = left_out("The language to speak, for models with several.")


class VoiceSettings(Parameters):
    """What a job may tell the model of ``text-to-audio`` itself."""

    speaker_id: int = left_out("Number of the voice, for models with several.", ge=0, le=100_000)


class TextToAudio(Parameters):
    """Parameters of ``text-to-audio``."""

    forward_params: VoiceSettings = left_out("For models that speak in one step, such as VITS.")
    generate_kwargs: SoundSettings = left_out(
        "How the sound is written, for models that write it step by step, such as MusicGen.",
        json_schema_extra=SETTINGS,
    )
    seed: int = repeatable()
