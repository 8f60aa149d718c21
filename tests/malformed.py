"""Jobs with mistakes in them: anything that JSON can say, and good jobs with something in the wrong place.

All chance comes from a ``random.Random``: a seeded one makes the same jobs everywhere, and Hypothesis brings one whose
draws it can shrink (``strategies.randoms``).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

#: Stands for values that no random draw would find.
NASTY: Final[Sequence[Any]] = (
    "",
    " ",
    "\x00",
    "\u202e\u0000\ufffe",
    "\ufdfd" * 40,
    "e" + "\u0301" * 200,
    "\U0001f9d1\u200d\U0001f9b0" * 20,
    "{}",
    "{:>300000000}",
    "{0.__class__}",
    "{% for x in range(10**9) %}{% endfor %}",
    "<image>",
    "<image>" * 5,
    "<|AUDIO|>",
    "<|mark|><|split|>",
    "[MASK] [SEP] [CLS]",
    "/etc/passwd",
    "../../etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/x.png",
    "data:image/png;base64,AAAA",
    "river stone " * 400,
    None,
    True,
    0,
    -1,
    0.5,
    1e308,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63),
    10**30,
    [],
    {},
    [[]],
    [{}],
    [None],
    {"": ""},
    {"$image": ""},
    {"$image": "AAAA"},
    {"$image": "/etc/passwd"},
    {"$image": {"url": "http://127.0.0.1:1/x.png"}},
    {"$image": {"ref": "redis:" + 32 * "0"}},
    {"$image": {"ref": "files:../../etc/passwd"}},
    {"$image": {"$image": "AAAA"}},
    {"$image": "AAAA", "more": 1},
    {"$audio": "UklGRg=="},
    {"$audio": {"$array": "", "dtype": "float32", "shape": [0]}, "sampling_rate": 16000},
    {"$audio": {"$array": "AAAAAA==", "dtype": "float32", "shape": [1]}, "sampling_rate": 16000},
    {"$audio": {"$array": "AADAfw==", "dtype": "float32", "shape": [1]}, "sampling_rate": 16000},
    {"$audio": {"$array": "AAAAAA==", "dtype": "object", "shape": [1]}, "sampling_rate": 10**12},
    {"$video": "AAAA"},
    {"$video": {"$array": "AAAA", "dtype": "uint8", "shape": [1, 1, 1, 3]}},
    {"$array": "AAAAAA==", "dtype": "float32", "shape": [1]},
    {"$array": "AAAAAA==", "dtype": "float32", "shape": [2**40, 2**40]},
    {"type": "image", "url": "http://127.0.0.1:1/x.png"},
    {"type": "image", "path": "/etc/passwd"},
    {"type": "image", "image": "/etc/passwd"},
    {"type": "text", "text": None},
    {"role": "user", "content": [{"type": "video", "video": "/etc/passwd"}]},
    {"role": "user", "content": None},
    {"text": 1, "text_pair": 2},
)

#: Parameters that every queue refuses, and some that a few take.
PARAMETERS: Final[Mapping[str, Any]] = {
    "trust_remote_code": True,
    "custom_generate": "/etc",
    "generation_config": {"max_new_tokens": 10**9},
    "batch_size": 10**6,
    "timeout": 1e9,
    "tesseract_config": "--user-words /etc/passwd",
    "hypothesis_template": "{:>300000000}",
    "candidate_labels": ["river", "stone"],
    "generate_kwargs": {"do_sample": True, "max_new_tokens": 3},
    "max_new_tokens": 3,
    "num_beams": 2,
    "bad_words_ids": [[9_999_999]],
    "suppress_tokens": [9_999_999],
    "forced_eos_token_id": 9_999_999,
    "stop_sequence": "a",
    "seed": 1,
    "top_k": 2,
    "truncation": True,
    "max_length": 3,
    "doc_stride": 1,
    "max_seq_len": 20,
    "chunk_length_s": 1,
    "return_timestamps": "word",
    "num_frames": 2,
    "frame_sampling_rate": 3,
    "sequential": True,
    "threshold": 0.5,
    "inputs": "x",
}

#: What generated texts are made of, but for halves of surrogate pairs: letters, marks, controls, pieces of formats.
_CHARACTERS: Final = "abc XYZ09_./:{}<>[]\"'\\%$\n\t\x00\x85\u0301\u202e\u3042\ufdfd\ufeff\U0001f600"

#: A good job: inputs and parameters.
Good = tuple[Any, Mapping[str, Any]]


def job(rng: random.Random, good: Sequence[Good]) -> tuple[Any, dict[str, Any]]:
    """Inputs and parameters: mostly good ones, spoilt; some made of nothing."""
    inputs, parameters = rng.choice(good)
    whole = [copy.deepcopy(inputs), copy.deepcopy(dict(parameters))]
    if isinstance(inputs, dict | list) and rng.randrange(5):
        spoil(rng, whole[0], rng.randint(1, 2))
    elif rng.randrange(3):
        whole[0] = value(rng)
    kind = rng.randrange(6)
    if kind == 0:
        whole[1] = odd_parameters(rng)
    elif kind == 1:
        spoil(rng, whole, 1)
    return whole[0], whole[1] if isinstance(whole[1], dict) else {"top_k": whole[1]}


def value(rng: random.Random, depth: int = 0) -> Any:
    """Whatever JSON can say, with a liking for the nasty."""
    kind = rng.randrange(10)
    if kind < 5 or depth > 3:  # half of them, and the ends of what nests
        return copy.deepcopy(rng.choice(NASTY))
    if kind == 5:  # a tenth, as the others
        return text(rng)
    if kind == 6:  # as above
        return rng.choice((rng.randint(-(2**70), 2**70), rng.uniform(-1e9, 1e9), 5e-324))
    if kind == 7:  # as above
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    if kind == 8:  # as above
        return {text(rng): value(rng, depth + 1) for _ in range(rng.randint(0, 4))}
    return nest(text(rng), rng.choice((2, 5, 40, 200)))


def text(rng: random.Random) -> str:
    """A few odd characters."""
    return "".join(rng.choice(_CHARACTERS) for _ in range(rng.randint(0, 12))) + "\ud800" * (rng.randrange(30) == 0)


def nest(inner: Any, depth: int) -> Any:
    """Lists in lists around a value."""
    for _ in range(depth):
        inner = [inner]
    return inner


def odd_parameters(rng: random.Random) -> dict[str, Any]:
    """Parameters of all tasks, some as they should be, some not."""
    names = [rng.choice(sorted(PARAMETERS)) if rng.randrange(4) else text(rng) for _ in range(rng.randint(1, 3))]
    return {name: PARAMETERS[name] if name in PARAMETERS and rng.randrange(2) else value(rng) for name in names}


def spoil(rng: random.Random, whole: Any, times: int) -> None:
    """Replace, remove, wrap or add something within lists and objects."""
    for _ in range(times):
        found = list(places(whole))
        if not found:
            return
        holder, key = rng.choice(found)
        inner, how = holder[key], rng.randrange(6)
        if how == 0 and isinstance(holder, dict):
            del holder[key]
        elif how == 1:
            holder[key] = [inner]
        elif how == 2 and isinstance(inner, list):  # one of six ways
            inner.insert(rng.randint(0, len(inner)), value(rng))
        elif how == 3 and isinstance(inner, dict):  # as above
            inner[text(rng)] = value(rng)
        else:
            holder[key] = value(rng)


def places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Every place within lists and objects."""
    for key, inner in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        yield holder, key
        if isinstance(inner, dict | list):
            yield from places(inner)
