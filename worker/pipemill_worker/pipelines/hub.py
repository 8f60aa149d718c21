"""What is downloaded of the hub's repositories: what loading reads, and nothing else. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download

#: What a pipeline may need of a repository: weights as safetensors; the files of configurations, tokenizers and
#: processors, those of sentence-transformers' modules among them; chat templates. No pickles.
MODEL_FILES: Final = ("*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.tiktoken", "*.jinja", "bpe.codes")
#: Python code, for queues that run it.
CODE_FILES: Final = ("*.py",)
#: The same model for other runtimes and in other forms, which may be as large again.
OTHER_FORMS: Final = ("onnx/*", "openvino/*", "coreml/*", "original/*", "consolidated*.safetensors")
#: All that is read of an adapter.
ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"


def download_model(
    model: str,
    revision: str | None,
    *,
    with_code: bool = False,
    cache: Path | None = None,
    cached_only: bool = False,
) -> Path:
    """Download a model's files, unless they are there; returns their folder. Offline, it is the one that is there.

    With ``cached_only`` nothing is downloaded: what isn't there is an OSError.

    Raises
    ------
    OSError, HFValidationError
        When the hub can't be reached, has no such model or revision, or refuses it.

    """
    files = [*MODEL_FILES, *CODE_FILES] if with_code else list(MODEL_FILES)
    folder = snapshot_download(
        model,
        revision=revision,
        allow_patterns=files,
        ignore_patterns=list(OTHER_FORMS),
        cache_dir=cache,
        local_files_only=cached_only,
    )
    return Path(folder)


def download_adapter(
    adapter: str, revision: str | None, *, cache: Path | None = None, cached_only: bool = False
) -> Path:
    """Download an adapter's two files, unless they are there; returns their folder.

    Raises
    ------
    OSError, HFValidationError
        As for a model.

    """
    folder = snapshot_download(
        adapter,
        revision=revision,
        allow_patterns=[ADAPTER_CONFIG, ADAPTER_WEIGHTS],
        cache_dir=cache,
        local_files_only=cached_only,
    )
    return Path(folder)
