"""How far the chunks of a long text may overlap: checked before the tokenizer makes them, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipemill_worker.pipelines.limits import check_overlap

#: Tokens of question and text in one chunk, where a job doesn't say: as the pipelines have it.
_QUESTION_ANSWERING_TOKENS: Final = 384


def check_overlaps(task: str, tokenizer: Any, inputs: Any, parameters: Mapping[str, Any]) -> None:
    """Refuse a job whose text would be cut into too many chunks.

    Raises
    ------
    InvalidParameter
        Names the parameter and what it may be.

    """
    if task == "token-classification" and parameters.get("stride") is not None:
        free = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
        words = bool(parameters.get("is_split_into_words"))
        check_overlap("stride", parameters["stride"], free, _longest(inputs, words=words))
    elif task in _ASKED:
        context, usual = _ASKED[task]
        for each in inputs if isinstance(inputs, list) else [inputs]:
            length = parameters.get("max_seq_len") or min(tokenizer.model_max_length, usual)
            overlap = parameters.get("doc_stride")
            if overlap is not None:
                asked = len(tokenizer(each["question"], add_special_tokens=False)["input_ids"])
                free = length - asked - tokenizer.num_special_tokens_to_add(pair=True)
                text = each.get(context) or ""
                characters = len(text) if isinstance(text, str) else sum(len(word) for word, _ in text)
                check_overlap("doc_stride", overlap, free, characters)


#: By task, the key of the text that is cut, and the tokens of a chunk where a job doesn't say.
_ASKED: Final[Mapping[str, tuple[str, int]]] = {
    "document-question-answering": ("word_boxes", 10**9),
    "question-answering": ("context", _QUESTION_ANSWERING_TOKENS),
}


def _longest(inputs: Any, *, words: bool) -> int:
    """Characters of the longest of one or several texts, which come as lists of words or not."""
    if isinstance(inputs, str):
        return len(inputs)
    if words and inputs and isinstance(inputs[0], str):
        return sum(map(len, inputs))
    return max((_longest(each, words=words) for each in inputs), default=0)
