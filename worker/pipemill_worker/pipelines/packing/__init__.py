"""Encoders without padding: the rows of a batch are laid end to end, and each attends to itself only.

A batch of mixed lengths is mostly padding: on a CPU, 32 rows in order of arrival took 2.6 times as long as one by one.
Here the layers of the encoder see only real tokens, ``[1, tokens, size]``; embeddings before them and heads behind them
stay as they are, ``[rows, longest, size]``. It goes through transformers' attention interface and hooks around the
layers, so that the checkpoint's own code runs.
"""

from __future__ import annotations

from pipemill_worker.pipelines.packing.packing import Packing, can_pack
from pipemill_worker.pipelines.packing.stacks import STACKS

__all__ = ["STACKS", "Packing", "can_pack"]
