"""Beam search, a step at a time: one prompt's beams, whose scores come from passes shared with others.

What a step does with scores is transformers' own: its methods are called with the tensors of one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers import GenerationMixin

#: A score that no sequence has.
_NEVER: Final = -1e9

_mixin: Any = GenerationMixin
_own: Any = object.__new__(GenerationMixin)


class BeamSearch:
    """The beams of one prompt."""

    def __init__(self, ids: torch.Tensor, processors: Any, criteria: Any, config: Any) -> None:
        beams, length = ids.shape
        self._processors, self._criteria, self._config = processors, criteria, config
        self._beams, self._start, self._length, self._most = beams, length, length, int(config.max_length)
        ends, pad = config._eos_token_tensor, config._pad_token_tensor  # noqa: SLF001 - where generate itself keeps them
        #: How many continuations are looked at: if all beams end at once, as many are left to go on.
        self._kept = max(2, 1 + (0 if ends is None else len(ends))) * beams
        self._best = torch.arange(self._kept, device=ids.device) < beams
        filling = -1 if ends is None else int(pad or ends[0])
        self._running = ids.new_full((1, beams, self._most), filling)
        self._running[0, :, :length] = ids
        self._finished = self._running.clone()
        self._scores = torch.zeros((1, beams), device=ids.device)
        self._scores[:, 1:] = _NEVER  # All beams are equal yet.
        self._finished_scores = torch.full_like(self._scores, _NEVER)
        self._is_finished = torch.zeros((1, beams), dtype=torch.bool, device=ids.device)
        self._may_improve = torch.ones((1, 1), dtype=torch.bool, device=ids.device)
        #: From which beam each token came, -1 where there is none: by it the answers' lengths are told.
        self._origins = torch.full((1, beams, self._most - length), -1, dtype=torch.int32, device=ids.device)
        self._finished_origins = self._origins.clone()
        #: The sequences before the last step.
        self._before = self._running
        #: Each beam's last token, and the beam that it goes on from.
        self.tokens: list[int] = []
        self.parents: list[int] = []

    def in_common(self, one: int, other: int) -> int:
        """How many tokens two beams had in common at their beginnings, before the last step."""
        first, second = self._before[0, one, : self._length - 1], self._before[0, other, : self._length - 1]
        return int((first == second).cumprod(0).sum())

    def step(self, logits: torch.Tensor) -> bool:
        """Go on by these scores of the next token, [beams, vocabulary]; whether the search has ended."""
        length = self._length
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        log_probs = self._processors(self._running[0, :, :length], log_probs)
        totals = (log_probs + self._scores[0, :, None]).reshape(1, -1)
        top_scores, top, top_origins = _mixin._get_top_k_continuations(  # noqa: SLF001 - there is no public way
            _own,
            accumulated_log_probs=totals,
            running_sequences=self._running,
            running_beam_indices=self._origins,
            cur_len=length,
            decoder_prompt_len=self._start,
            do_sample=False,
            beams_to_keep=self._kept,
            num_beams=self._beams,
            batch_size=1,
        )
        stopped = self._criteria(top[0, :, : length + 1], None).reshape(1, self._kept)
        self._before = self._running
        self._running, self._scores, self._origins = _mixin._get_running_beams_for_next_iteration(  # noqa: SLF001 - as above
            _own,
            topk_log_probs=top_scores,
            topk_running_sequences=top,
            topk_running_beam_indices=top_origins,
            next_token_hits_stopping_criteria=stopped,
            num_beams=self._beams,
        )
        self._note_finished(top_scores, top, top_origins, stopped)
        self.tokens = self._running[0, :, length].tolist()
        self.parents = self._origins[0, :, length - self._start].tolist()
        self._length += 1
        return self._has_ended(stopped)

    def _note_finished(
        self, top_scores: torch.Tensor, top: torch.Tensor, top_origins: torch.Tensor, stopped: torch.Tensor
    ) -> None:
        self._finished, self._finished_scores, self._finished_origins, self._is_finished = (
            _mixin._update_finished_beams(  # noqa: SLF001 - as above
                _own,
                sequences=self._finished,
                topk_running_sequences=top,
                beam_scores=self._finished_scores,
                topk_log_probs=top_scores,
                beam_indices=self._finished_origins,
                topk_running_beam_indices=top_origins,
                is_early_stop_heuristic_unsatisfied=self._may_improve,
                is_sent_finished=self._is_finished,
                next_token_hits_stopping_criteria=stopped,
                top_num_beam_mask=self._best,
                num_beams=self._beams,
                cur_len=self._length,
                decoder_prompt_len=self._start,
                length_penalty=self._config.length_penalty,
                early_stopping=self._config.early_stopping,
            )
        )

    def _has_ended(self, stopped: torch.Tensor) -> bool:
        config = self._config
        self._may_improve = _mixin._check_early_stop_heuristic(  # noqa: SLF001 - as above
            is_early_stop_heuristic_unsatisfied=self._may_improve,
            running_beam_scores=self._scores,
            beam_scores=self._finished_scores,
            is_sent_finished=self._is_finished,
            cur_len=self._length,
            max_length=self._most,
            decoder_prompt_len=self._start,
            early_stopping=config.early_stopping,
            length_penalty=config.length_penalty,
        )
        goes_on = _mixin._beam_search_has_unfinished_sequences(  # noqa: SLF001 - as above
            self._may_improve, self._is_finished, stopped, config.early_stopping
        )
        return not bool(goes_on)

    def answers(self) -> torch.Tensor:
        """The best sequences found: [answers, tokens], filled up to the longest."""
        count = self._config.num_return_sequences
        longest = int((self._finished_origins[0, :count] >= 0).sum(dim=1).max())
        return self._finished[0, :count, : self._start + longest].clone()


def followed(parents: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """Which row each beam is kept in when it goes on from its parent's, and the rows that are copied for it.

    A parent's first beam stays in its row. Each other is copied into the row of a beam that has no child:
    ``(from, into)``, which leaves every row that is copied from as it was.
    """
    free = [row for row in range(len(parents)) if row not in parents]
    rows, copies, taken = [], [], set[int]()
    for parent in parents:
        row = parent
        if parent in taken:
            row = free.pop()
            copies.append((parent, row))
        taken.add(parent)
        rows.append(row)
    return rows, copies
