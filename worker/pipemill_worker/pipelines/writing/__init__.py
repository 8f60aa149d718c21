"""Texts written together, token by token: each step is one forward pass over all rows that are being written.

A batch that is written to its end wastes most of its passes on rows that have ended. Here a prompt joins between two
steps, after a pass of its own, and leaves with its last token. What ``generate`` resolves of a job (its configuration,
its logits processors, what stops it) is transformers' own work, and so is each prompt's first pass; only the loop is
ours.
"""
