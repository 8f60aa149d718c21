"""The GPUs of this machine, asked of torch in a process of its own: the supervisor loads neither torch nor CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from pipemill.errors import ConfigurationError

#: The variable by which a process sees some GPUs only.
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
#: Counts CUDA's (or ROCm's) devices; a Mac's GPU counts as one.
_COUNT: Final = "import torch; print(torch.cuda.device_count() or int(torch.backends.mps.is_available()))"
#: How long torch may take to be loaded from a cold disk and to count, in seconds.
_COUNT_SECONDS: Final = 300.0


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, each as ``CUDA_VISIBLE_DEVICES`` names it.

    Raises
    ------
    ConfigurationError
        When torch can't be asked.

    """
    return gpu_names(_count(), os.environ.get(VISIBLE))


def gpu_names(count: int, visible: str | None) -> tuple[str, ...]:
    """The names of so many GPUs, given the variable's value: numbers, or ids such as ``GPU-8932f937``."""
    if visible is None:
        return tuple(str(number) for number in range(count))
    return tuple(name.strip() for name in visible.split(","))[:count]


def _count() -> int:
    command = [sys.executable, "-P", "-c", _COUNT]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_COUNT_SECONDS, check=False)  # noqa: S603  # our own
        if asked.returncode == 0:
            return int(asked.stdout)
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        reason = f"no answer within {_COUNT_SECONDS:.0f} s"
    raise ConfigurationError(
        f"torch can't say how many GPUs there are ({reason}): mend its installation, or set device: cpu for every queue"
    )
