"""Greedy texts by vLLM, for `scripts/bench generation --vllm`: run by the Python that has it, not by pipemill's.

Given a model's folder; reads lines of JSON from standard input, ``[[prompt's token ids, new tokens], …]``, and answers
each with a line, ``{"seconds": …, "texts": [token ids, …]}``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

#: In this process, one core, and memory for keys and values in GiB.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What vLLM prints is no answer.
    library: Any = importlib.import_module("vllm")  # After the settings above.
    model = library.LLM(
        model=sys.argv[1],
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=1_024,
        max_num_seqs=64,
        enable_prefix_caching=False,
    )
    for line in sys.stdin:
        asked = json.loads(line)
        prompts = [{"prompt_token_ids": prompt} for prompt, _ in asked]
        settings = [
            library.SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False) for _, new in asked
        ]
        started = time.perf_counter()
        written = model.generate(prompts, settings, use_tqdm=False)
        seconds = time.perf_counter() - started
        texts = [list(each.outputs[0].token_ids) for each in written]
        print(json.dumps({"seconds": seconds, "texts": texts}), file=answers, flush=True)


if __name__ == "__main__":
    main()
