"""What a process does with memory that it frees."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from pipemill_worker.pipelines.loading import allocator

#: Prints whether memory is kept, and how many pages the system has to clear for 20 blocks of 8 MiB, one by one.
BLOCKS = """
import resource, torch
from pipemill_worker.pipelines.loading.allocator import keep_freed_memory
kept = keep_freed_memory()
block = lambda: torch.ones(2 << 20)
block()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
#: Pages of one such block.
PAGES = (8 << 20) // 4096


def faults(**environment: str) -> tuple[bool, int]:
    """Run it; what it prints."""
    found = subprocess.run([sys.executable, "-c", BLOCKS], env=environment, capture_output=True, text=True, check=True)
    kept, count = found.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_serves_again() -> None:
    """Blocks that follow each other come to need no new pages; with one's own settings they take what these say."""
    kept, count = faults()
    assert kept
    assert count < 5 * PAGES
    kept, count = faults(MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
    assert count > 15 * PAGES


def test_without_glibc_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another C library has no such function: that is no error."""
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    for name in allocator._OWN:
        monkeypatch.delenv(name, raising=False)
    assert not allocator.keep_freed_memory()
