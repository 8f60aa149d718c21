"""Parameters of the tasks that find the answer to a question in a text, a page or a table."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from pipemill.parameters.base import Parameters, Ranked, about, left_out

#: Tokens of one part of a document: each is scored as a beginning with each as an end.
MAX_PART_TOKENS: Final = 8_192
#: Tokens of an answer: each beginning is scored with so many ends.
MAX_ANSWER_TOKENS: Final = 1_000

_PartTokens = Annotated[int, Field(ge=1, le=MAX_PART_TOKENS)]


class _Spans(Parameters):
    """What both tasks that look for a span of words take."""

    top_k: Ranked = left_out("How many answers to return, best first.")
    doc_stride: int = left_out("Tokens by which the parts of a long document overlap.", ge=0, le=MAX_PART_TOKENS)
    max_answer_len: int = left_out("Tokens of an answer at most.", ge=1, le=MAX_ANSWER_TOKENS)
    max_seq_len: _PartTokens = left_out("Tokens of question and part together.")
    handle_impossible_answer: bool = left_out("Allow that there is no answer.")

    @model_validator(mode="after")
    def _parts_go_on(self) -> Self:
        if {"doc_stride", "max_seq_len"} <= self.model_fields_set and self.doc_stride >= self.max_seq_len:
            raise about("doc_stride", "not less than max_seq_len", f"give at most {self.max_seq_len - 1}")
        return self


class QuestionAnswering(_Spans):
    """Parameters of ``question-answering``."""

    max_question_len: _PartTokens = left_out("Tokens to which the question is cut.")
    align_to_words: bool = left_out("Let answers begin and end with whole words.")


class DocumentQuestionAnswering(_Spans):
    """Parameters of ``document-question-answering``."""

    lang: Annotated[
        str,
        Field(
            pattern=r"^[a-z_+]{3,30}$",
            json_schema_extra={"allowed": "Tesseract's names of languages, such as eng, chi_sim or eng+deu"},
        ),
    ] = left_out("Languages of the page, for Tesseract; it reads a page that comes without word_boxes.")


class TableQuestionAnswering(Parameters):
    """Parameters of ``table-question-answering``."""

    sequential: bool = left_out("Ask questions one after the other, each with the last one's answer.")
    truncation: bool | Literal["drop_rows_to_fit", "do_not_truncate"] = left_out(
        "What becomes of a table that is too long for the model."
    )
