"""Packages beyond the worker's own that a task can't do without."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipemill_worker.pipelines.loading.refusal import TORCHVISION_MEND, Refusal


@dataclass(frozen=True, slots=True)
class _Need:
    """A module, and how it is installed."""

    module: str
    mend: str
    #: Whether it may be installed and still not load.
    fragile: bool = False


_IMAGES: Final = _Need("PIL", 'pip install "pipemill[worker]"')
_VIDEOS: Final = _Need("av", 'pip install "pipemill[worker-media]"')
_TABLES: Final = _Need("pandas", 'pip install "pipemill[tables]"')
#: Overlapping masks are sorted out by torchvision's compiled code, which loads beside its own torch only.
_MASKS: Final = _Need("torchvision.ops.boxes", TORCHVISION_MEND, fragile=True)

_NEEDS: Final[Mapping[str, tuple[_Need, ...]]] = {
    "any-to-any": (_IMAGES,),
    "depth-estimation": (_IMAGES,),
    "document-question-answering": (_IMAGES,),
    "image-classification": (_IMAGES,),
    "image-feature-extraction": (_IMAGES,),
    "image-segmentation": (_IMAGES,),
    "image-text-to-text": (_IMAGES,),
    "keypoint-matching": (_IMAGES,),
    "mask-generation": (_IMAGES, _MASKS),
    "object-detection": (_IMAGES,),
    "table-question-answering": (_TABLES,),
    "video-classification": (_IMAGES, _VIDEOS),
    "zero-shot-image-classification": (_IMAGES,),
    "zero-shot-object-detection": (_IMAGES,),
}


def check_needs(task: str) -> None:
    """Refuse a task whose packages aren't there.

    Raises
    ------
    Refusal
        Names the package and how to install it.

    """
    for need in _NEEDS.get(task, ()):
        package = need.module.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            raise Refusal(f"this task needs {package}, which isn't installed", need.mend)
        if need.fragile:
            _check_loads(need)


def _check_loads(need: _Need) -> None:
    try:
        importlib.import_module(need.module)
    except (ImportError, OSError, RuntimeError) as error:
        package = need.module.partition(".")[0]
        raise Refusal(f"this task needs {package}, which can't be loaded ({error})", need.mend) from error
