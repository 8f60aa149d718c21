"""Parameters of the tasks that write about images, videos and sounds."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from pipemill.parameters.base import Name, Parameters, about, left_out, repeatable
from pipemill.parameters.generation import MAX_NEW_TOKENS, SETTINGS, Generation, StopSequence


class ImageTextToText(Parameters):
    """Parameters of ``image-text-to-text``."""

    max_new_tokens: int = left_out("Tokens written at most.", ge=1, le=MAX_NEW_TOKENS)
    generate_kwargs: Generation = left_out("How the answer is written.", json_schema_extra=SETTINGS)
    stop_sequence: StopSequence = left_out(
        "Writing ends after this text, which is part of the answer; several in a list."
    )
    return_full_text: bool = left_out("Return the prompt before the answer.")
    clean_up_tokenization_spaces: bool = left_out("Remove spaces that only the tokenizer made.")
    skip_special_tokens: bool = left_out("Leave special tokens out of the answer.")
    continue_final_message: bool = left_out("Go on with a chat's last message instead of answering it.")
    seed: int = repeatable()

    @model_validator(mode="after")
    def _length_once(self) -> Self:
        both = {"max_new_tokens", "generate_kwargs"} <= self.model_fields_set
        if both and "max_new_tokens" in self.generate_kwargs.model_fields_set:
            raise about("max_new_tokens", "given twice", "give it outside of generate_kwargs only")
        return self


class AnySettings(Generation):
    """Settings of the generation of ``any-to-any``."""

    speaker: Name = left_out("Name of the voice, for models that speak.")


class AnyToAny(ImageTextToText):
    """Parameters of ``any-to-any``."""

    generate_kwargs: AnySettings = left_out("How the answer is written.", json_schema_extra=SETTINGS)
    generation_mode: Literal["text", "image", "audio"] = left_out("What to answer with; left out, text.")

    @model_validator(mode="after")
    def _full_text_is_text(self) -> Self:
        if "return_full_text" in self.model_fields_set and self.generation_mode in {"image", "audio"}:
            raise about("return_full_text", "needs text as generation_mode", "leave it out")
        return self
