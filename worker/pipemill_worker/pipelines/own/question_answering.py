"""Answers as spans of a context: ``question-answering``, with the parameters and answers of transformers 4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from pipemill_worker.pipelines.own import spans
from pipemill_worker.pipelines.own.base import ChunkPipeline, StageParameters, TextOnly
from pipemill_worker.pipelines.own.spans import Chunk

#: Tokens of question and context in one forward pass, where a job doesn't say.
_MAX_SEQ_LEN: Final = 384

#: Tokens that neighbouring chunks share, where a job doesn't say; at most half a chunk.
_DOC_STRIDE: Final = 128

#: Tokens of an answer, where a job doesn't say.
_MAX_ANSWER_LEN: Final = 15

#: Spans considered beyond the answers wanted, since several may widen to the same words.
_SPARE_SPANS: Final = 10

#: An item's own values, which never reach the model.
_OWN: Final = ("chunk", "is_last")


class QuestionAnsweringPipeline(TextOnly, ChunkPipeline):  # type: ignore[misc]  # its base has no hints
    """``{"question": …, "context": …}`` gives ``{"score", "start", "end", "answer"}``; a list of them a list of such.

    ``context[start:end] == answer``. A list of one is answered as if it were alone. Parameters:

    - ``top_k``: answers wanted; above 1, each input gives a list of them, best first
    - ``max_answer_len``: tokens of an answer, 15 by default
    - ``max_seq_len``: tokens of question and context in one forward pass, by default 384 or the model's most;
      a longer context is cut into chunks that share ``doc_stride`` tokens (by default 128)
    - ``max_question_len``: tokens to which a question is cut; by default it is never cut
    - ``handle_impossible_answer``: whether "" may be the answer, for models trained to say so
    - ``align_to_words``: whether answers are widened to whole words, true by default
    """

    default_input_names = "question,context"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not getattr(self.tokenizer, "is_fast", False):
            raise ValueError(
                f"question-answering needs a fast tokenizer, which knows each token's place in the text, and"
                f" {type(self.tokenizer).__name__} isn't one: choose a model with a tokenizer.json"
            )

    def __call__(self, inputs: Any = None, **kwargs: Any) -> Any:
        """Answer each question from its context."""
        if inputs is None:
            inputs = {name: kwargs.pop(name) for name in ("question", "context") if name in kwargs}
        if isinstance(inputs, list | tuple) and len(inputs) == 1:
            inputs = inputs[0]
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> StageParameters:
        preprocess: dict[str, Any] = {}
        postprocess: dict[str, Any] = {}
        for name, value in parameters.items():
            if name in {"doc_stride", "max_seq_len", "max_question_len"}:
                stage = preprocess
            elif name in {"top_k", "max_answer_len", "handle_impossible_answer", "align_to_words"}:
                stage = postprocess
            else:
                raise ValueError(f"question-answering has no parameter {name[:80]!r}: leave it out")
            if value is not None:
                stage[name] = value
        for name in ("top_k", "max_answer_len"):
            if postprocess.get(name, 1) < 1:
                raise ValueError(f"{name} is {postprocess[name]}: give at least 1")
        return preprocess, {}, postprocess

    def preprocess(
        self,
        inputs: Mapping[str, str],
        *,
        doc_stride: int | None = None,
        max_seq_len: int | None = None,
        max_question_len: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Question and a stretch of context, once per stretch."""
        question, context = _question_and_context(inputs)
        if max_question_len is not None:
            question = self._cut(question, max_question_len)
        length = min(self.tokenizer.model_max_length, _MAX_SEQ_LEN) if max_seq_len is None else max_seq_len
        # The tokenizer cuts the side that it pads, so the context goes there.
        question_first = self.tokenizer.padding_side == "right"
        encoded = self.tokenizer(
            text=question if question_first else context,
            text_pair=context if question_first else question,
            truncation="only_second" if question_first else "only_first",
            max_length=length,
            stride=self._overlap(question, length, doc_stride),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        names = [name for name in self.tokenizer.model_input_names if name in encoded]
        last = len(encoded.encodings) - 1
        for index in range(last + 1):
            tensors = {name: torch.tensor([encoded[name][index]]) for name in names}
            chunk = self._chunk(encoded, index, context, sequence=1 if question_first else 0)
            yield {**tensors, "chunk": chunk, "is_last": index == last}

    def _forward(self, model_inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = self.model(**{name: value for name, value in model_inputs.items() if name not in _OWN})
        own = {name: model_inputs[name] for name in _OWN}
        return {"start_logits": outputs["start_logits"], "end_logits": outputs["end_logits"], **own}

    def postprocess(
        self,
        model_outputs: Sequence[Mapping[str, Any]],
        *,
        top_k: int = 1,
        max_answer_len: int = _MAX_ANSWER_LEN,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """The best spans of all stretches; equal texts count as one answer, their scores together."""
        count = 2 * top_k + _SPARE_SPANS if align_to_words else top_k
        answers: dict[str, dict[str, Any]] = {}
        nulls = []
        for output in model_outputs:
            chunk: Chunk = output["chunk"]
            starts, ends = (self._scores(output[name], chunk) for name in ("start_logits", "end_logits"))
            nulls.append(float(starts[chunk.null] * ends[chunk.null]))
            for span in spans.best_spans(starts, ends, chunk, count, max_answer_len):
                start, end = spans.characters(chunk, span, align_to_words=align_to_words)
                text = chunk.context[start:end]
                found = {"score": 0.0, "start": start, "end": end, "answer": text}
                answers.setdefault(text.lower(), found)["score"] += span.score
        ranked = list(answers.values())
        if handle_impossible_answer or not ranked:
            ranked.append(
                {"score": min(nulls) if handle_impossible_answer else 0.0, "start": 0, "end": 0, "answer": ""}
            )
        ranked.sort(key=lambda answer: -answer["score"])
        return ranked[0] if top_k == 1 else ranked[:top_k]

    def _cut(self, question: str, most: int) -> str:
        """The question's first tokens, as text."""
        offsets = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return question if len(offsets) <= most else question[: offsets[most - 1][1]]

    def _overlap(self, question: str, length: int, wanted: int | None) -> int:
        """Tokens that neighbouring chunks share: fewer than a chunk has room for."""
        asked = len(self.tokenizer(question, add_special_tokens=False)["input_ids"])
        room = length - asked - self.tokenizer.num_special_tokens_to_add(pair=True)
        if room < 1:
            raise ValueError(
                f"the question has {asked} tokens, which leaves none of {length} for the context:"
                " shorten it, pass max_question_len to cut it, or pass a larger max_seq_len"
            )
        if wanted is None:
            usual = min(length // 2, _DOC_STRIDE)
            return usual if usual < room else room // 2
        if wanted >= room:
            raise ValueError(f"doc_stride {wanted} is no less than a chunk's room for context: give at most {room - 1}")
        return wanted

    def _chunk(self, encoded: Any, index: int, context: str, *, sequence: int) -> Chunk:
        ids = encoded["input_ids"][index]
        sequences = encoded.sequence_ids(index)
        special = [position for position, owner in enumerate(sequences) if owner is None]
        null = next((position for position in special if ids[position] == self.tokenizer.cls_token_id), 0)
        return Chunk(
            context=context,
            offsets=encoded["offset_mapping"][index],
            words=encoded.word_ids(index),
            answerable=np.array([owner == sequence for owner in sequences]),
            null=null,
        )

    def _scores(self, logits: torch.Tensor, chunk: Chunk) -> spans.Scores:
        """Probabilities of the chunk's own tokens: what padding a batch added is cut."""
        row = logits[0].float()
        length = len(chunk.offsets)
        own = row[:length] if self.tokenizer.padding_side == "right" else row[-length:]
        return spans.probabilities(own.numpy(), chunk)


def _question_and_context(inputs: Any) -> tuple[str, str]:
    texts = []
    for name in ("question", "context"):
        text = inputs.get(name) if isinstance(inputs, Mapping) else None
        if not isinstance(text, str) or not text:
            raise ValueError(f'there is no {name}: give {{"question": "…", "context": "…"}}, or a list of such')
        texts.append(text)
    return texts[0], texts[1]
