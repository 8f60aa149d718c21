"""vLLM as an engine: a process of its own, spoken to by lines of JSON."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.loading.sources import model_folder
from pipemill_worker.pipelines.settings import ModelSettings
from pipemill_worker.pipelines.writing.engines.rows import EngineFailedError, News, Row

log = logging.getLogger("pipemill.worker")

#: What runs there; it needs nothing of pipemill.
PROGRAM: Final = Path(__file__).with_name("vllm_process.py")
#: Seconds between the beginnings of two processes, at least.
AGAIN_SECONDS: Final = 15.0
#: Its memory is in blocks, whose size depends on the device: this is a multiple of them.
_BLOCK_TOKENS: Final = 256
_MEND: Final = "see docs/batching.md, Other engines: vllm_python names the Python that has vLLM"
_MAX_CAUSE_CHARACTERS: Final = 400


class Vllm:
    """A ``RowEngine``; it begins again after a failure."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command, self._environment = list(command), dict(environment)
        self._names: set[str] = set()
        self._max_tokens = 0
        self._again = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._running = False

    def start(self) -> None:
        """Begin, and wait until it is ready.

        Raises
        ------
        EngineFailedError
            When it can't be begun.

        """
        self._begin()
        while not self._running:
            self._note_ready(self._hear(wait=True))

    @property
    def ready(self) -> bool:
        """Whether it takes rows now."""
        try:
            if self._process is None and time.monotonic() >= self._again:
                self._begin()
            if self._process is not None and not self._running and not self._said.empty():
                self._note_ready(self._hear(wait=True))
        except EngineFailedError as error:
            log.warning(
                "vLLM doesn't begin: %s", shorten(error, _MAX_CAUSE_CHARACTERS), extra={"event": "engine_failed"}
            )
        return self._running

    @property
    def max_tokens(self) -> int:
        """The most tokens of a row, the prompt's included."""
        return self._max_tokens

    def knows(self, choice: Mapping[str, float]) -> bool:  # noqa: ARG002 - the seam's: they are its own names
        """Whether it can choose tokens so."""
        return True

    def add(self, rows: Sequence[Row]) -> None:
        """Let rows join."""
        self._names.update(row.name for row in rows)
        self._say({"add": [[row.name, list(row.ids), row.most, sorted(row.ends), row.choice] for row in rows]})

    def drop(self, names: Collection[str]) -> None:
        """Stop writing these."""
        if gone := self._names & set(names):
            self._names -= gone
            self._say({"drop": sorted(gone)})

    def clear(self) -> None:
        """Stop writing all."""
        if self._running:
            self.drop(set(self._names))
        self._names.clear()

    def news(self, *, wait: bool) -> Sequence[News]:
        """What was written meanwhile."""
        told: list[News] = []
        while message := self._hear(wait=wait and not told):
            told += [News(*each) for each in message["news"] if each[0] in self._names]
            self._names.difference_update(each.name for each in told if each.over)
            if not self._names:
                break
        return told

    def close(self) -> None:
        """End the process."""
        process, self._process, self._running = self._process, None, False
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _begin(self) -> None:
        self._said = queue.SimpleQueue()
        self._again = time.monotonic() + AGAIN_SECONDS
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the catalogue's own Python, and our own program
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # It ends with its input: a signal for the worker isn't for it.
            )
        except OSError as error:
            self._fail(str(error))
        threading.Thread(target=_listen, args=(self._process, self._said), name="vllm", daemon=True).start()

    def _note_ready(self, message: Mapping[str, Any] | None) -> None:
        if message is not None:
            self._max_tokens, self._running = int(message["ready"]), True

    def _hear(self, *, wait: bool) -> dict[str, Any] | None:
        if self._process is None:
            raise EngineFailedError("its process has ended")
        try:
            message = self._said.get(block=wait)
        except queue.Empty:
            return None
        if message is None or "failed" in message:
            self._fail("its process has ended" if message is None else message["failed"])
        return message

    def _say(self, message: Mapping[str, Any]) -> None:
        pipe = None if self._process is None else self._process.stdin
        if pipe is None:
            raise EngineFailedError("its process has ended")
        try:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()
        except OSError:
            self._fail("its process has ended")

    def _fail(self, why: str) -> None:
        self.close()
        self._names.clear()
        if time.monotonic() >= self._again:
            self._begin()
        raise EngineFailedError(why)


def _listen(process: Any, said: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    try:
        for line in process.stdout:
            said.put(json.loads(line))
    except ValueError:
        pass  # A line that breaks off is an end, or the pipe was closed on our side.
    said.put(None)


def open_vllm(settings: ModelSettings, model: Any, *, max_rows: int, cache_bytes: int, max_tokens: int) -> Vllm:
    """Begin vLLM on a queue's model, in the number format in which it is loaded here, and wait until it is ready.

    ``cache_bytes`` hold the keys and values of ``max_tokens``.

    Raises
    ------
    Refusal
        When it can't be begun.

    """
    options = {
        "model": str(model_folder(settings)),
        "dtype": str(model.dtype).removeprefix("torch."),  # Its own "auto" makes half of what is whole.
        "max_model_len": _longest(model.config.get_text_config(decoder=True), max_tokens),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # A job's own settings are all there are.
        "max_num_seqs": max_rows,
        "kv_cache_memory_bytes": cache_bytes,
        "disable_log_stats": True,
    }
    python = settings.vllm_python or sys.executable
    engine = Vllm([python, "-u", str(PROGRAM), json.dumps(options)], _environment(settings.device))
    try:
        engine.start()
    except EngineFailedError as error:
        engine.close()
        raise Refusal(f"vLLM doesn't begin ({shorten(error, _MAX_CAUSE_CHARACTERS)})", _MEND) from error
    return engine


def _longest(config: Any, max_tokens: int) -> int:
    """The most tokens of a text: as many as the model knows places for, and as whole blocks of its memory hold."""
    held = max(max_tokens // _BLOCK_TOKENS * _BLOCK_TOKENS, 1)
    return min(held, getattr(config, "max_position_embeddings", None) or held)


def _environment(device: str) -> dict[str, str]:
    """The worker's, without its own secrets; with the GPU that the queue names, and no more threads than the worker."""
    secret = ("PIPEMILL_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    own = {name: value for name, value in os.environ.items() if not name.startswith(secret)}
    own |= {"HF_HUB_OFFLINE": "1"}  # All that it reads is in the model's folder.
    own.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    if device.startswith("cuda:"):
        number, visible = int(device.partition(":")[2]), own.get("CUDA_VISIBLE_DEVICES", "").split(",")
        own["CUDA_VISIBLE_DEVICES"] = visible[number] if number < len(visible) and visible[number] else str(number)
    return own
