"""Every kind of mistake in a catalogue: found at its path and line, with its mend, beside all others."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipemill.catalogue import Mistake, QueueSettings, find_mistakes, load_catalogue
from pipemill.errors import CatalogueError
from pipemill.parameters import TASKS

#: A queue without mistakes, to which a case's lines are added.
QUEUE = """\
queues:
  q:
    task: text-classification
    model: org/name
    revision: 714eb0f
"""
LINES_OF_QUEUE = len(QUEUE.splitlines())
#: A queue of which only the task is right.
BARE = "queues:\n  q:\n    task: fill-mask\n"

#: Lines added to QUEUE's queue; path below it; problem; mend.
IN_QUEUE = [
    ("batch: {max_items: 0}", "batch.max_items", "0 is less than 1", "give a whole number from 1 to 4096"),
    ("batch: {max_items: 5000}", "batch.max_items", "5000 is more than 4096", "give a whole number from 1 to 4096"),
    ("batch: {max_items: 2.5}", "batch.max_items", "2.5 is not a whole number", "give a whole number from 1 to 4096"),
    ("batch: {max_items: true}", "batch.max_items", "true is not a whole number", "from 1 to 4096"),
    ("batch: {max_items: '8'}", "batch.max_items", '"8" is not a whole number', "from 1 to 4096"),
    ("batch: {max_tokens: 0}", "batch.max_tokens", "0 is less than 1", "from 1 to 16777216 or null"),
    ("batch: {max_amplification: 0.5}", "batch.max_amplification", "0.5 is less than 1", "a number from 1 to 100"),
    ("batch: {max_amplification: .nan}", "batch.max_amplification", "nan is not a finite number", "from 1 to 100"),
    ("batch: {max_itmes: 3}", "batch.max_itmes", "unknown key", "did you mean max_items?"),
    ("batch: 64", "batch", "64 is not a mapping", "give a mapping with the keys max_items, max_tokens, max_ampl"),
    ("limits: {max_depth: 0}", "limits.max_depth", "0 is less than 1", "from 1 to 100000000"),
    ("limits: {max_input_bytes: 536870913}", "limits.max_input_bytes", "536870913 is more than 536870912", "from 1"),
    ("limits: {max_bytes: 0}", "limits.max_bytes", "0 is less than 1", "from 1 to 1099511627776 or null"),
    ("limits: {max_memory_share: 0}", "limits.max_memory_share", "0 is not more than 0", "above 0 and at most 1"),
    (
        "fair: false\nlimits: {max_tenant_depth: 5}",
        "fair",
        "limits.max_tenant_depth and limits.max_tenant_bytes need lists of the tenants' own",
        "let tenants take turns with fair: true",
    ),
    (
        "priority_ageing_seconds: 0",
        "priority_ageing_seconds",
        "0 is not more than 0",
        "above 0 and at most 604800 or null",
    ),
    ("limits: {max_media: 0}", "limits.max_media", "0 is less than 1", "from 1 to 4096"),
    ("limits: {max_pixels: 1.5}", "limits.max_pixels", "1.5 is not a whole number", "from 1 to 1000000000"),
    ("limits: {max_seconds: .inf}", "limits.max_seconds", "inf is not a finite number", "above 0 and at most 86400"),
    ("batch: {tolerance: 2}", "batch.tolerance", "2 is more than 1", "give a number from 0 to 1"),
    ("urls: {}", "urls.hosts", "missing", "give a list of at most 256 items, each a host's name"),
    ("urls: {hosts: a.b}", "urls.hosts", '"a.b" is not a list', "give a list of at most 256 items, each a"),
    ("urls: {hosts: [5]}", "urls.hosts[0]", "5 is not a string", "give a host's name in lower case"),
    ("urls: {hosts: []}", "urls.hosts", "empty", "name at least one host"),
    ("urls: {hosts: ['*']}", "urls.hosts[0]", '"*" is not of the right form', "such as images.example.org"),
    ("urls: {hosts: [http://a.b]}", "urls.hosts[0]", '"http://a.b" is not of the right form', "a host's name in lower"),
    (
        "quantisation: int3",
        "quantisation",
        '"int3" is not known here',
        "give one of int8, int8-dynamic, int4, bnb-int8, bnb-nf4",
    ),
    ("result_ttl_seconds: 0", "result_ttl_seconds", "0 is less than 1", "from 1 to 31536000"),
    ("result_ttl_seconds: an hour", "result_ttl_seconds", '"an hour" is not a whole number', "from 1 to 31536000"),
    ("prefetch: 0", "prefetch", "0 is less than 1", "give a whole number from 1 to 100000 or null"),
    ("dtype: fp16", "dtype", '"fp16" is not known here', "give one of auto, float32, float16, bfloat16"),
    ("dtype: floot16", "dtype", '"floot16" is not known here', "did you mean float16? Give one of auto, float32"),
    ("device: gpu", "device", '"gpu" is not of the right form', "give one of auto, cpu, mps, cuda, or a numbered GPU"),
    ("device: 0", "device", "0 is not a string", "give one of auto, cpu, mps, cuda, or a numbered GPU such as cuda:0"),
    ("device_map: everywhere", "device_map", '"everywhere" is not known here', "give one of auto, balanced"),
    ("zzz: 1", "zzz", "unknown key", "use one of task, model, revision, dtype, device, device_map, quantisation"),
    ("revison: 1", "revison", "unknown key", "did you mean revision?"),
    ("parameters: {top_k: 0}", "parameters.top_k", "0 is less than 1", "give a whole number from 1 to 1000 or null"),
    ("parameters: {topk: 1}", "parameters.topk", "unknown key", "did you mean top_k?"),
    ("parameters: [top_k]", "parameters", "a list is not a mapping", "give a mapping"),
    (
        "parameters: {trust_remote_code: true}",
        "parameters.trust_remote_code",
        "never accepted from a job",
        "it runs code that the operator didn't choose",
    ),
]

#: Lines added to BARE's queue; path below it; problem; mend.
MODELS = [
    ("", "model", "missing", "give a hub id such as org/name, a directory that starts with ./ ../ or /"),
    ("model: 5", "model", "5 is not a string", "give a hub id such as org/name"),
    ("model: gpt2", "model", '"gpt2" is neither a hub id nor a directory', "give a hub id such as org/name"),
    ("model: a/b/c", "model", '"a/b/c" is neither a hub id nor a directory', "give a hub id"),
    ("model: https://h/b", "model", '"https://h/b" is neither a hub id nor a directory', "give a hub id"),
    ("model: ~/m", "model", '"~/m" is neither a hub id nor a directory', "a directory that starts with ./ ../ or /"),
    ("model: builtin:sentimnt", "model", 'there is no "builtin:sentimnt"', "did you mean builtin:sentiment?"),
    ("model: builtin:x", "model", 'there is no "builtin:x"', "use builtin:sentiment or builtin:generator"),
    (
        "model: builtin:sentiment",
        "model",
        "builtin:sentiment is for text-classification, not for fill-mask",
        "set task to text-classification or name another model",
    ),
    ("model: org/name", "revision", "missing", "give the commit hash that the hub shows in the history of org/name"),
    ("model: org/name\nrevision: main", "revision", '"main" is not a commit hash, and a branch', "7 to 40 hex digits"),
    ("model: org/name\nrevision: 714eb0", "revision", '"714eb0" is not a commit hash', "7 to 40 hex digits"),
    ("model: org/name\nrevision: 7145061", "revision", "YAML reads it as a number", "put the commit hash in quotes"),
    ("model: org/name\nrevision: [a]", "revision", "a list is not a string", "give a commit hash of 7 to 40 hex"),
    ("model: ./here\nrevision: 714eb0f", "revision", "a directory has no revision", "remove this line"),
    (
        "model: org/name\nrevision: 714eb0f\ndevice: cuda\ndevice_map: auto",
        "device_map",
        "excludes device, which is cuda",
        "keep one of the two",
    ),
    (
        "model: org/name\nrevision: 714eb0f\nengine: vllm",
        "engine",
        "is for text-generation, and the task is fill-mask",
        "leave it out",
    ),
    (
        "model: org/name\nrevision: 714eb0f\nvllm_python: /bin/python",
        "vllm_python",
        "is for engine vllm, and the engine is exact",
        "set engine: vllm",
    ),
]

#: A whole file; path; problem; mend.
FILES = [
    ("broker: redis://h", "queues", "missing", "give a mapping of at least one queue's name to its settings"),
    ("queues: {}", "queues", "empty", "give a mapping of at least one queue's name to its settings"),
    ("queues: [a]", "queues", "a list is not a mapping", "give a mapping of at least one queue's name"),
    ("queues: {q: hello}", "queues.q", '"hello" is not a mapping', "give a mapping with the keys task, model"),
    ("queues: {q: {}}", "queues.q.task", "missing", "give a task that `pipemill schema` lists"),
    ("queues: {q: {task: ehco}}", "queues.q.task", '"ehco" is not known here', "did you mean echo? Give a task that"),
    ("queues: {celery: {task: echo}}", "queues.celery", "the name of Celery's own default queue", "choose another"),
    ("queues: {a b: {task: echo}}", 'queues."a b"', "not a queue's name", "use 1 to 64 letters, digits, dots, dashes"),
    ("queues: {-a: {task: echo}}", "queues.-a", "not a queue's name", "a letter or digit first"),
    ("queues: {yes: {task: echo}}", "queues.yes", "YAML reads this key as something other than", "put it in quotes"),
    ("queues: {1: {task: echo}}", "queues.1", "YAML reads this key as something other than text", "put it in quotes"),
    (
        "queues: {q: {task: echo}, q: {task: echo}}",
        "queues.q",
        "stands twice, and only the last would count",
        "remove one",
    ),
    ("queues: {q: {task: echo, model: a/b}}", "queues.q.model", "echo has no model", "remove this line"),
    (
        "queues: {q: {task: echo, revision: 714eb0f}}",
        "queues.q.revision",
        "echo has no model",
        "remove this line",
    ),
    (
        "queues: {q: {task: echo, parameters: {top_k: 1}}}",
        "queues.q.parameters.top_k",
        "unknown key",
        "remove it, none is taken here",
    ),
    (
        "queues: {q: {task: text-generation, model: builtin:generator, revision: 714eb0f}}",
        "queues.q.revision",
        "a builtin model has no revision",
        "remove this line",
    ),
    (
        "queues: {q: {task: text-generation, model: builtin:generator, engine: vllm, adapter: ./here}}",
        "queues.q.engine",
        "excludes adapter",
        "keep one of the two",
    ),
    (
        "queues: {q: {task: text-generation, model: builtin:generator, engine: continuous, compile: true}}",
        "queues.q.engine",
        "excludes compile",
        "keep one of the two",
    ),
    ("blobs: {}\nqueues: {q: {task: echo}}", "blobs.location", "missing", "give a URL of fsspec, such as s3://bucket"),
    (
        "blobs: {location: /tmp}\nqueues: {q: {task: echo}}",
        "blobs.location",
        '"/tmp" is not of the right form',
        "give a URL of fsspec",
    ),
    ("queue: {}\nqueues: {q: {task: echo}}", "queue", "unknown key", "did you mean queues?"),
    ("broker: 5\nqueues: {q: {task: echo}}", "broker", "not a string", "give a URL such as redis://host:6379/0"),
    ("broker: amqp://h\nqueues: {q: {task: echo}}", "broker", "not a redis://, rediss:// or unix:// URL", "give a URL"),
    ("worker: {lease_seconds: 1}\nqueues: {q: {task: echo}}", "worker.lease_seconds", "1 is less than 2", "from 2 to"),
    ("worker: {drain_seconds: -1}\nqueues: {q: {task: echo}}", "worker.drain_seconds", "-1 is less than 0", "from 0"),
    ("worker: {drain_seconds: .inf}\nqueues: {q: {task: echo}}", "worker.drain_seconds", "inf is not a fin", "from 0"),
    ("worker: {max_deliveries: 0}\nqueues: {q: {task: echo}}", "worker.max_deliveries", "0 is less than 1", "from 1"),
    ("worker: {torch_threads: 0}\nqueues: {q: {task: echo}}", "worker.torch_threads", "0 is less than 1", "or null"),
    ("worker: {preprocess_threads: 65}\nqueues: {q: {task: echo}}", "worker.preprocess_threads", "65 is more", "to 64"),
    ("worker: fast\nqueues: {q: {task: echo}}", "worker", '"fast" is not a mapping', "give a mapping with the keys"),
]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(TASKS)
anything = st.recursive(scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(scalars, each, max_size=3))
queues = st.fixed_dictionaries(
    {"task": st.sampled_from(TASKS) | anything},
    optional={
        name: anything | st.sampled_from(["builtin:generator", "./x", "org/name", "714eb0f", "cpu", "auto"])
        for name in QueueSettings.model_fields
        if name != "task"
    },
)
sections = st.fixed_dictionaries(
    {"queues": st.dictionaries(st.from_regex("[a-z]{1,3}", fullmatch=True), queues | anything, max_size=2) | anything},
    optional={"broker": anything, "worker": anything, "wroker": anything},
)


def mistakes_of(folder: Path, text: str) -> list[Mistake]:
    """The mistakes of a catalogue's text."""
    file = folder / "pipemill.yaml"
    file.write_text(text, encoding="utf-8")
    return find_mistakes(file, environ={})


def assert_only(found: list[Mistake], path: str, problem: str, mend: str) -> None:
    """Exactly this one mistake was found."""
    assert [each.path for each in found] == [path]
    assert found[0].problem.startswith(problem)
    assert mend in found[0].mend


@pytest.mark.parametrize(("lines", "path", "problem", "mend"), IN_QUEUE)
def test_mistake_in_a_queue(tmp_path: Path, lines: str, path: str, problem: str, mend: str) -> None:
    """A wrong setting of a queue is the only mistake found, at its line."""
    found = mistakes_of(tmp_path, QUEUE + indent(lines, "    "))
    assert_only(found, f"queues.q.{path}", problem, mend)
    assert found[0].line == LINES_OF_QUEUE + 1


@pytest.mark.parametrize(("lines", "path", "problem", "mend"), MODELS)
def test_mistake_in_a_model(tmp_path: Path, lines: str, path: str, problem: str, mend: str) -> None:
    """A model that can't be, or isn't pinned, is the only mistake found."""
    assert_only(mistakes_of(tmp_path, BARE + indent(lines, "    ")), f"queues.q.{path}", problem, mend)


@pytest.mark.parametrize(("text", "path", "problem", "mend"), FILES)
def test_mistake_in_the_file(tmp_path: Path, text: str, path: str, problem: str, mend: str) -> None:
    """A mistake outside of a queue's settings is the only one found."""
    assert_only(mistakes_of(tmp_path, text), path, problem, mend)


def test_no_mistake_hides_another(tmp_path: Path) -> None:
    """All mistakes of a file, of the environment and of the options come at once, the file's in order of lines."""
    file = tmp_path / "pipemill.yaml"
    text = """\
    broker: http://h
    worker:
      lease_seconds: 1
      leese: 1
    queues:
      a b: {task: echo}
      a:
        task: text-classification
        model: org/name
        device: cpu
        device_map: auto
        batch: {max_items: 0, max_tokens: 0}
        parameters: {top_k: 0, topk: 1}
      b:
        task: nothing
        prefetch: 0
        prefetch: 0
    """
    file.write_text(dedent(text), encoding="utf-8")
    environ = {"PIPEMILL_LEASE_SECONDS": "soon", "PIPEMILL_DEVICE": "tpu"}
    found = find_mistakes(file, environ=environ, overrides={"max_deliveries": 0})
    assert [(each.line, each.path) for each in found] == [
        (1, "broker"),
        (3, "worker.lease_seconds"),
        (4, "worker.leese"),
        (6, 'queues."a b"'),
        (7, "queues.a.revision"),
        (11, "queues.a.device_map"),
        (12, "queues.a.batch.max_items"),
        (12, "queues.a.batch.max_tokens"),
        (13, "queues.a.parameters.top_k"),
        (13, "queues.a.parameters.topk"),
        (15, "queues.b.task"),
        (17, "queues.b.prefetch"),
        (17, "queues.b.prefetch"),
        (None, "--max-deliveries"),
        (None, "PIPEMILL_LEASE_SECONDS"),
        (None, "PIPEMILL_DEVICE"),
    ]
    assert all(each.problem and each.mend for each in found)


def test_error_lists_each_mistake_in_a_line(tmp_path: Path) -> None:
    """The error's text names the file, and then each mistake with its line, path, problem and mend."""
    file = tmp_path / "pipemill.yaml"
    file.write_text("queues:\n  q: {task: echo, batch: {max_items: 0}}\n", encoding="utf-8")
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(file, environ={"PIPEMILL_MAX_DELIVERIES": "0"})
    assert str(caught.value) == (
        f"{file} has 2 mistakes:\n"
        "  line 2: queues.q.batch.max_items: 0 is less than 1: give a whole number from 1 to 4096\n"
        "  PIPEMILL_MAX_DELIVERIES: 0 is less than 1: give a whole number from 1 to 100"
    )


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (None, "there is no such directory"),
        ([], "the directory holds no config.json"),
        (["config.json", "pytorch_model.bin"], "the directory holds no *.safetensors"),
    ],
)
def test_missing_model_is_a_mistake_when_files_are_checked(
    tmp_path: Path, files: list[str] | None, problem: str
) -> None:
    """A directory without a model is told when asked for, beside the other mistakes; otherwise not."""
    if files is not None:
        (tmp_path / "model").mkdir()
        for name in files:
            (tmp_path / "model" / name).touch()
    file = tmp_path / "pipemill.yaml"
    file.write_text("queues: {q: {task: fill-mask, model: ./model, prefetch: 0}}", encoding="utf-8")
    found = find_mistakes(file, environ={}, check_files=True)
    assert sorted(each.path for each in found) == ["queues.q.model", "queues.q.prefetch"]
    assert next(each for each in found if each.path == "queues.q.model").problem.startswith(problem)
    assert [each.path for each in find_mistakes(file, environ={})] == ["queues.q.prefetch"]


def test_model_directory_is_no_mistake(tmp_path: Path) -> None:
    """A directory with configuration and weights passes the check of files."""
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    file = tmp_path / "pipemill.yaml"
    file.write_text("queues: {q: {task: fill-mask, model: ./}}", encoding="utf-8")
    assert find_mistakes(file, environ={}, check_files=True) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(sections)
def test_any_data_is_loaded_or_told(tmp_path: Path, data: Any) -> None:
    """Whatever a YAML file says, it is a catalogue or a list of complete, short mistakes; nothing is raised."""
    found = mistakes_of(tmp_path, yaml.safe_dump(data))
    assert all(each.problem and each.mend and len(str(each)) < 1_000 for each in found)
    if not found:
        assert load_catalogue(tmp_path / "pipemill.yaml", environ={}).queues.keys() == data["queues"].keys()


def test_long_values_are_cut(tmp_path: Path) -> None:
    """No mistake repeats a whole long value or a whole long key."""
    long = "x" * 1_000  # YAML takes no longer key
    found = mistakes_of(tmp_path, f"{long}: 1\nqueues: {{{long}: {{task: {long}, {long}: 1}}}}")
    assert len(found) == 4
    assert all(len(str(each)) < 500 for each in found)
