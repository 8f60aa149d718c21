"""vLLM in a process of its own, run by the Python that has it: it pins other versions than pipemill needs.

Given options as JSON; reads lines of JSON from standard input and answers each step with a line. It ends with its
input.

In: ``{"add": [[name, ids, most new tokens, ends, choice], …], "drop": [name, …]}``. Out, once: ``{"ready": most tokens
of a row}``, or ``{"failed": why}``. Then ``{"news": [[name, new tokens, over, why it is refused], …]}``.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
from typing import Any, NoReturn, TextIO

#: The engine in this process, and no word of who uses it to anyone.
_SETTINGS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What vLLM prints is no answer.
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(asked,), daemon=True).start()
    del sys.path[0]  # Our neighbours here are nobody's modules there.
    try:
        library: Any = importlib.import_module("vllm")
        engine = library.LLMEngine.from_engine_args(library.EngineArgs(**json.loads(sys.argv[1])))
    except BaseException as error:  # whatever it is, the worker is to tell
        _say(answers, {"failed": f"{type(error).__name__}: {error}"})
        raise
    _say(answers, {"ready": engine.model_config.max_model_len})
    _serve(library, engine, asked, answers)


def _read(asked: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)  # Whatever is being loaded or written, nobody waits for it.


def _serve(library: Any, engine: Any, asked: queue.SimpleQueue[str], answers: TextIO) -> NoReturn:
    while True:
        news: list[list[Any]] = []
        while not asked.empty() or not (news or engine.has_unfinished_requests()):
            news += _heed(library, engine, json.loads(asked.get()))
        for output in engine.step() if engine.has_unfinished_requests() else ():
            news.append([output.request_id, list(output.outputs[0].token_ids), output.finished, ""])
        if news:
            _say(answers, {"news": news})


def _heed(library: Any, engine: Any, message: dict[str, Any]) -> list[list[Any]]:
    """Do as asked; what the engine won't write."""
    refused: list[list[Any]] = []
    engine.abort_request(message.get("drop", []))
    for name, ids, most, ends, choice in message.get("add", ()):
        try:
            settings = library.SamplingParams(
                max_tokens=most,
                stop_token_ids=ends,
                ignore_eos=True,
                detokenize=False,
                output_kind=library.sampling_params.RequestOutputKind.DELTA,
                **choice,
            )
            engine.add_request(name, {"prompt_token_ids": ids}, settings)
        except Exception as error:  # noqa: BLE001 - its checks raise whatever they like, before the engine has it
            refused.append([name, [], True, f"{type(error).__name__}: {error}"])
    return refused


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
