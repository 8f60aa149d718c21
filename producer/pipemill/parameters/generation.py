"""Parameters of the tasks that write a text token by token."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from pipemill.parameters.base import Finite, Name, Parameters, Share, Text, about, left_out, repeatable

#: New tokens of one job: they hold a row of the running batch for as long.
MAX_NEW_TOKENS: Final = 4_096
#: Tokens of prompt and answer together, where a job bounds them so: the prompt may be long, the answer may not.
MAX_LENGTH: Final = 8_192
#: Beams, and sequences returned: each is a row of the batch.
MAX_ROWS: Final = 16
#: Beams times sequences returned.
MAX_ROWS_TOGETHER: Final = 64
#: Token ids; above the vocabulary of every model in wide use.
MAX_TOKEN_ID: Final = 10_000_000
#: Said where an option that takes these settings was given something else.
SETTINGS: Final = {"allowed": "a mapping of generation settings, such as max_new_tokens and do_sample"}

_StopString = Annotated[Text, Field(min_length=1, max_length=200)]
_TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
_TokenIds = Annotated[list[_TokenId], Field(min_length=1, max_length=1_000)]
#: The least of what logits are divided by. Far below, they become infinite; on a GPU, a draw from such chances ends the
#: worker.
LEAST_DIVISOR: Final = 0.01
_Penalty = Annotated[Finite, Field(ge=LEAST_DIVISOR, le=10)]
#: Texts at which writing ends.
StopSequence = _StopString | Annotated[list[_StopString], Field(min_length=1, max_length=16)]


class Generation(Parameters):
    """Settings of a generation, which tasks take as parameters of their own or under ``generate_kwargs``."""

    max_new_tokens: int = left_out("Tokens written at most.", ge=1, le=MAX_NEW_TOKENS)
    min_new_tokens: int = left_out("Tokens written at least.", ge=0, le=MAX_NEW_TOKENS)
    max_length: int = left_out(
        "Tokens of prompt and answer together, or of the answer alone where the model encodes the prompt; "
        "only where max_new_tokens is left out.",
        ge=1,
        le=MAX_LENGTH,
    )
    min_length: int = left_out("Tokens at least, counted as in max_length.", ge=0, le=MAX_LENGTH)
    do_sample: bool = left_out("Draw tokens by chance; false takes the likeliest each time.")
    temperature: Annotated[Finite, Field(ge=LEAST_DIVISOR, le=10)] = left_out(
        "How even the chances are made before drawing; 1 leaves them as they are.",
        json_schema_extra={
            "allowed": f"a number from {LEAST_DIVISOR} to 10, or set do_sample to false for no chance at all"
        },
    )
    top_k: int = left_out("Draw from so many likeliest tokens; 0 is no limit.", ge=0, le=100_000)
    top_p: Annotated[Finite, Field(gt=0, le=1)] = left_out(
        "Draw from the likeliest tokens that together have this probability."
    )
    min_p: Share = left_out("Draw from tokens with at least this share of the likeliest token's probability.")
    top_h: Annotated[Finite, Field(gt=0, le=1)] = left_out(
        "Draw from the likeliest tokens that together have this share of the entropy."
    )
    typical_p: Annotated[Finite, Field(gt=0, le=1)] = left_out(
        "Draw from the most typical tokens that together have this probability."
    )
    epsilon_cutoff: Annotated[Finite, Field(ge=0, lt=1)] = left_out(
        "Draw from tokens with at least this probability; 0 is no limit."
    )
    eta_cutoff: Annotated[Finite, Field(ge=0, lt=1)] = left_out(
        "As epsilon_cutoff, with a limit that falls where the model is unsure."
    )
    repetition_penalty: _Penalty = left_out("Above 1 makes tokens that already stand in the text less likely.")
    encoder_repetition_penalty: _Penalty = left_out("Above 1 makes tokens that stand in the prompt likelier.")
    no_repeat_ngram_size: int = left_out("Tokens of a sequence that may not come twice; 0 is no limit.", ge=0, le=1_000)
    encoder_no_repeat_ngram_size: int = left_out(
        "Tokens of a sequence that may not be taken from the prompt; 0 is no limit.", ge=0, le=1_000
    )
    num_beams: int = left_out("Beams searched; 1 is no beam search.", ge=1, le=MAX_ROWS)
    num_return_sequences: int = left_out("Answers to one prompt.", ge=1, le=MAX_ROWS)
    length_penalty: Annotated[Finite, Field(ge=-10, le=10)] = left_out(
        "Above 0 prefers longer beams, below 0 shorter ones."
    )
    early_stopping: bool | Literal["never"] = left_out("When a beam search ends.")
    guidance_scale: Annotated[Finite, Field(ge=0, le=100)] = left_out(
        "Above 1 keeps closer to the prompt; each step then runs the model twice."
    )
    bad_words_ids: Annotated[
        list[Annotated[list[_TokenId], Field(min_length=1, max_length=100)]], Field(min_length=1, max_length=1_000)
    ] = left_out("Sequences of token ids that are never written.")
    suppress_tokens: _TokenIds = left_out("Token ids that are never written.")
    begin_suppress_tokens: _TokenIds = left_out("Token ids that are not written first.")
    forced_bos_token_id: _TokenId = left_out("Token id that is written first.")
    forced_eos_token_id: _TokenId = left_out("Token id that is written last where max_length is reached.")
    renormalize_logits: bool = left_out("Make the chances sum up to 1 again after all that changed them.")
    remove_invalid_values: bool = left_out("Take what the model computed as NaN or infinite for a number.")

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        for least, most in (("min_new_tokens", "max_new_tokens"), ("min_length", "max_length")):
            if {least, most} <= self.model_fields_set and getattr(self, least) > getattr(self, most):
                raise about(least, f"more than {most}", f"give at most {getattr(self, most)}")
        return self

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        # Without a token that may come, all chances are NaN; on a GPU, a draw from them ends the worker.
        never = {*(self.suppress_tokens or ()), *(self.begin_suppress_tokens or ())}
        never |= {ids[0] for ids in self.bad_words_ids or () if len(ids) == 1}
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            if getattr(self, name) in never:
                raise about(name, "a token that is never written", "leave it out of suppress_tokens and bad_words_ids")
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        beams, sequences = self.num_beams or 1, self.num_return_sequences or 1  # None when left out
        if beams * sequences > MAX_ROWS_TOGETHER:
            raise about(
                "num_return_sequences",
                f"{sequences} times num_beams {beams} is more than {MAX_ROWS_TOGETHER}",
                f"give at most {MAX_ROWS_TOGETHER // beams}",
            )
        if 1 < beams < sequences:
            raise about("num_return_sequences", f"more than num_beams {beams}", f"give at most {beams}")
        if sequences > 1 and beams == 1 and self.do_sample is False:
            raise about(
                "num_return_sequences", "all would be equal without do_sample", "set do_sample to true or give 1"
            )
        return self


class TextGeneration(Generation):
    """Parameters of ``text-generation``."""

    stop_sequence: StopSequence = left_out(
        "Writing ends after this text, which is part of the answer; several in a list."
    )
    return_full_text: bool = left_out("Return the prompt before the answer.")
    clean_up_tokenization_spaces: bool = left_out(
        "Remove spaces that only the tokenizer made; left out, the tokenizer decides."
    )
    skip_special_tokens: bool = left_out("Leave special tokens out of the answer.")
    prefix: Text = left_out("Text put before the prompt.", max_length=10_000)
    truncation: bool = left_out("Cut a prompt that is too long for the model.")
    add_special_tokens: bool = left_out("Add the model's start and end tokens to the prompt.")
    handle_long_generation: Literal["hole"] = left_out(
        "hole cuts the prompt's beginning so that the answer fits the model's context."
    )
    continue_final_message: bool = left_out("Go on with a chat's last message instead of answering it.")
    seed: int = repeatable()


class Rewriting(Generation):
    """Parameters of ``summarization`` and ``text2text-generation``."""

    truncation: bool = left_out("Cut a text that is too long for the model.")
    clean_up_tokenization_spaces: bool = left_out("Remove spaces that only the tokenizer made.")
    seed: int = repeatable()


class Translation(Rewriting):
    """Parameters of ``translation``."""

    src_lang: Name = left_out("The text's language, as the model's tokenizer calls it.")
    tgt_lang: Name = left_out("The translation's language, as the model's tokenizer calls it.")
