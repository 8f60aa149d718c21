"""Finding, completing and overriding the catalogue."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipemill.catalogue import (
    Catalogue,
    QueueSettings,
    Source,
    find_catalogue,
    find_mistakes,
    load_catalogue,
    resolve_broker,
)
from pipemill.errors import CatalogueError

#: Every setting that can come from outside the file: value in the file, in the environment, as an option.
SETTINGS: list[tuple[str, Any, str, Any]] = [
    ("broker", "redis://file", "redis://environ", "redis://option"),
    ("lease_seconds", 10, "20", 30.5),
    ("drain_seconds", 1.5, "2.5", 3),
    ("max_deliveries", 4, "5", 6),
    ("preprocess_threads", 2, "3", "4"),
    ("torch_threads", 2, "3", 4),
    ("processes", 2, "3", 4),
    ("cache_dir", "file", "environ", "option"),
    ("health_file", "file", "environ", "option"),
    ("health_port", 8001, "8002", 8003),
    ("health_host", "127.0.0.1", "localhost", "::1"),
    ("device", "cpu", "cuda:1", "mps"),
]
DEFAULTS: dict[str, Any] = {
    "broker": "redis://localhost:6379/0",
    "lease_seconds": 15.0,
    "drain_seconds": 30.0,
    "max_deliveries": 3,
    "stuck_seconds": 300.0,
    "preprocess_threads": 1,
    "torch_threads": None,
    "processes": 1,
    "cache_dir": None,
    "health_file": None,
    "health_port": None,
    "health_host": "127.0.0.1",
    "device": "auto",
}

#: Every default of a queue that says only its task.
QUEUE_DEFAULTS: dict[str, Any] = {
    "task": "echo",
    "model": None,
    "revision": None,
    "dtype": "auto",
    "device": "auto",
    "device_map": None,
    "quantisation": None,
    "compile": False,
    "engine": "exact",
    "vllm_python": None,
    "adapter": None,
    "adapter_revision": None,
    "trust_remote_code": False,
    "urls": None,
    "parameters": {},
    "batch": {
        "max_items": 128,
        "max_tokens": None,
        "max_amplification": 1.5,
        "max_wait_ms": 10.0,
        "cache_bytes": 1_073_741_824,
        "calibrate": True,
        "packing": True,
        "tolerance": 1e-4,
    },
    "limits": {
        "max_depth": 100_000,
        "max_bytes": None,
        "max_tenant_depth": None,
        "max_tenant_bytes": None,
        "max_memory_share": 0.9,
        "max_input_bytes": None,
        "max_media": 16,
        "max_media_bytes": 67_108_864,
        "max_pixels": 25_000_000,
        "max_seconds": 1_800,
        "max_frames": 1_024,
    },
    "retry": {
        "max_attempts": 3,
        "backoff_seconds": 1.0,
        "max_backoff_seconds": 60.0,
        "jitter": True,
        "errors": "transient",
    },
    "fair": True,
    "priority_ageing_seconds": 60.0,
    "signed": None,
    "result_ttl_seconds": 3_600,
    "prefetch": None,
}


def write(folder: Path, text: str = "queues: {q: {task: echo}}") -> Path:
    """Write a catalogue."""
    file = folder / "pipemill.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def setting(catalogue: Catalogue, name: str) -> Any:
    """The value of a setting, wherever it stands."""
    if name == "broker":
        return catalogue.broker.reveal()
    return catalogue.queues["q"].device if name == "device" else getattr(catalogue.worker, name)


def with_setting(name: str, value: Any) -> str:
    """A catalogue that sets one setting."""
    texts = {
        "broker": f"broker: {value}\nqueues: {{q: {{task: echo}}}}",
        "device": f"queues: {{q: {{task: echo, device: {value}}}}}",
    }
    return texts.get(name, f"worker: {{{name}: {value}}}\nqueues: {{q: {{task: echo}}}}")


@pytest.mark.parametrize(("name", "in_file", "in_environ", "as_option"), SETTINGS)
def test_option_beats_environment_beats_file_beats_default(
    tmp_path: Path, name: str, in_file: Any, in_environ: str, as_option: Any
) -> None:
    """Each source of a setting wins over the ones below it, and its value has the setting's own type."""
    default = DEFAULTS[name]
    kind: Any = type(in_file) if default is None else type(default)
    environ = {f"PIPEMILL_{name.upper()}": in_environ}
    assert setting(load_catalogue(write(tmp_path), environ={}), name) == default
    file = write(tmp_path, with_setting(name, in_file))
    assert setting(load_catalogue(file, environ={}), name) == kind(in_file)
    assert setting(load_catalogue(file, environ=environ), name) == kind(in_environ)
    assert setting(load_catalogue(file, environ=environ, overrides={name: as_option}), name) == kind(as_option)
    assert type(setting(load_catalogue(file, environ=environ), name)) is kind


def test_environment_is_the_process_own_at_call_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another environment, the process's own counts, as it is when the catalogue is loaded."""
    file = write(tmp_path)
    monkeypatch.setenv("PIPEMILL_LEASE_SECONDS", "99")
    assert load_catalogue(file).worker.lease_seconds == 99
    monkeypatch.setenv("PIPEMILL_LEASE_SECONDS", "98")
    assert load_catalogue(file).worker.lease_seconds == 98


def test_what_is_empty_or_none_is_not_given(tmp_path: Path) -> None:
    """An empty variable and an option that is None leave what stands below them."""
    catalogue = load_catalogue(
        write(tmp_path), environ={"PIPEMILL_DEVICE": "", "PIPEMILL_BROKER": ""}, overrides={"max_deliveries": None}
    )
    assert setting(catalogue, "device") == "auto"
    assert catalogue.worker.max_deliveries == 3


def test_device_from_outside_takes_the_place_of_device_maps(tmp_path: Path) -> None:
    """A device for every queue replaces each queue's device and device map, which would exclude it."""
    file = write(tmp_path, "queues: {q: {task: echo, device_map: auto}, p: {task: echo, device: cpu}}")
    queues = load_catalogue(file, environ={"PIPEMILL_DEVICE": "cuda"}).queues
    assert {(queue.device, queue.device_map) for queue in queues.values()} == {("cuda", None)}


@pytest.mark.parametrize(
    ("environ", "overrides", "path", "problem"),
    [
        ({"PIPEMILL_LEASE_SECONDS": "soon"}, {}, "PIPEMILL_LEASE_SECONDS", '"soon" is not a number'),
        ({"PIPEMILL_LEASE_SECONDS": "nan"}, {}, "PIPEMILL_LEASE_SECONDS", "nan is not a finite number"),
        ({"PIPEMILL_DRAIN_SECONDS": "-1"}, {}, "PIPEMILL_DRAIN_SECONDS", "-1 is less than 0"),
        ({"PIPEMILL_MAX_DELIVERIES": "1.5"}, {}, "PIPEMILL_MAX_DELIVERIES", '"1.5" is not a whole number'),
        ({"PIPEMILL_TORCH_THREADS": "9" * 5000}, {}, "PIPEMILL_TORCH_THREADS", '"999'),
        ({"PIPEMILL_DEVICE": "gpu"}, {}, "PIPEMILL_DEVICE", '"gpu" is not of the right form'),
        ({}, {"lease_seconds": 1}, "--lease-seconds", "1 is less than 2"),
        ({}, {"lease_second": 1}, "--lease-second", "unknown key"),
        ({}, {"device": 3}, "--device", "3 is not a string"),
    ],
)
def test_mistake_outside_the_file_has_its_variables_or_options_name(
    tmp_path: Path, environ: dict[str, str], overrides: dict[str, Any], path: str, problem: str
) -> None:
    """A wrong variable or option is told by its own name, with a mend, and without a line."""
    (mistake,) = find_mistakes(write(tmp_path), environ=environ, overrides=overrides)
    assert (mistake.path, mistake.line) == (path, None)
    assert mistake.problem.startswith(problem)
    assert mistake.mend
    assert not mistake.mend.endswith("null")


def test_catalogue_is_found_by_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file given counts, else the one of the environment, else the working directory's if there is one."""
    monkeypatch.chdir(tmp_path)
    environ = {"PIPEMILL_CATALOGUE": "named.yaml"}
    assert find_catalogue(None, {}) is None
    write(tmp_path)
    assert find_catalogue(None, {}) == Path("pipemill.yaml")
    assert find_catalogue(None, environ) == Path("named.yaml")
    assert find_catalogue("given.yaml", environ) == Path("given.yaml")
    assert load_catalogue(environ={}).queues.keys() == {"q"}


def test_no_catalogue_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any catalogue the error says how to name one, and mistakes of the environment come with it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CatalogueError, match="there is no catalogue: name one by option or in PIPEMILL_CATALOGUE"):
        load_catalogue(environ={})
    assert len(find_mistakes(environ={"PIPEMILL_DEVICE": "x"})) == 2


def test_unreadable_catalogue_is_told(tmp_path: Path) -> None:
    """A file that isn't there is named in the error, with the reason and the mend."""
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(tmp_path / "absent.yaml", environ={})
    assert str(caught.value) == (
        f"{tmp_path / 'absent.yaml'} has a mistake:\n"
        "  can't be read (No such file or directory): name a file that exists and is readable"
    )


def test_broker_is_found_by_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's broker is the one given, else the environment's, else the catalogue's, else the local one."""
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, "broker: redis://:pw@file\nqueues: {q: {nothing: right}}")
    environ = {"PIPEMILL_BROKER": "redis://environ"}
    assert resolve_broker("redis://given", file, environ) == "redis://given"
    assert resolve_broker(None, file, environ) == "redis://environ"
    assert resolve_broker(None, file, {}) == "redis://:pw@file"
    assert resolve_broker(None, None, {}) == "redis://:pw@file"
    assert resolve_broker(None, None, {"PIPEMILL_CATALOGUE": str(file)}) == "redis://:pw@file"
    assert resolve_broker(None, write(tmp_path), {}) == "redis://localhost:6379/0"
    file.unlink()
    assert resolve_broker(None, None, {}) == "redis://localhost:6379/0"


def test_broker_of_an_unreadable_catalogue_is_told(tmp_path: Path) -> None:
    """A client that was given a catalogue doesn't fall back to another broker in silence."""
    with pytest.raises(CatalogueError, match="can't be read"):
        resolve_broker(None, tmp_path / "absent.yaml", {})


def test_relative_models_stand_beside_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path of a model is resolved against the catalogue's folder, wherever the process is."""
    (tmp_path / "config").mkdir()
    text = """
    queues:
      beside: {task: fill-mask, model: ./model}
      above: {task: fill-mask, model: ../model}
      absolute: {task: fill-mask, model: /models/a}
      hub: {task: fill-mask, model: org/name, revision: 714eb0f}
      builtin: {task: text-generation, model: builtin:generator}
      nothing: {task: echo}
    """
    write(tmp_path / "config", text)
    monkeypatch.chdir(tmp_path)
    queues = load_catalogue("config/pipemill.yaml", environ={}).queues
    assert {name: (queue.source, queue.model) for name, queue in queues.items()} == {
        "beside": (Source.DIRECTORY, str(tmp_path / "config/model")),
        "above": (Source.DIRECTORY, str(tmp_path / "model")),
        "absolute": (Source.DIRECTORY, "/models/a"),
        "hub": (Source.HUB, "org/name"),
        "builtin": (Source.BUILTIN, "builtin:generator"),
        "nothing": (Source.NONE, None),
    }


def test_defaults_are_complete(tmp_path: Path) -> None:
    """A queue that says only what it must gets every default, also where a section is left empty."""
    text = "worker:\nqueues:\n  q:\n    task: echo\n    parameters:\n    batch:\n    limits:\n    retry:\n"
    catalogue = load_catalogue(write(tmp_path, text), environ={})
    queue = catalogue.queues["q"]
    assert catalogue.worker.model_dump() == {name: DEFAULTS[name] for name in type(catalogue.worker).model_fields}
    assert queue.model_dump() == QUEUE_DEFAULTS
    assert queue.prefetch_jobs == 512
    assert catalogue.blobs is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{task: echo}", 1_048_576),
        ("{task: object-detection, model: ./m}", 33_554_432),
        ("{task: object-detection, model: ./m, limits: {max_input_bytes: 7}}", 7),
    ],
)
def test_input_bytes_are_worked_out(tmp_path: Path, settings: str, expected: int) -> None:
    """A queue that doesn't limit its inputs takes a long text, or a few photographs where its task takes media."""
    catalogue = load_catalogue(write(tmp_path, f"queues: {{q: {settings}}}"), environ={})
    assert catalogue.queues["q"].max_input_bytes == expected


def test_sections_for_media(tmp_path: Path) -> None:
    """Hosts and a place for large media are named, and everything else about them has a default."""
    text = (
        "blobs: {location: 's3://bucket/prefix'}\n"
        "queues: {q: {task: image-classification, model: ./m, urls: {hosts: [images.example.org, '*.example.com']}}}"
    )
    catalogue = load_catalogue(write(tmp_path, text), environ={})
    assert catalogue.model_dump()["blobs"] == {
        "location": "s3://bucket/prefix",
        "min_bytes": 262_144,
        "retention_days": 7,
    }
    assert catalogue.queues["q"].model_dump()["urls"] == {
        "hosts": ("images.example.org", "*.example.com"),
        "max_bytes": 33_554_432,
        "timeout_seconds": 10,
    }


def test_given_prefetch_counts(tmp_path: Path) -> None:
    """Jobs leased ahead are as many as the queue says."""
    catalogue = load_catalogue(write(tmp_path, "queues: {q: {task: echo, prefetch: 7}}"), environ={})
    assert catalogue.queues["q"].prefetch_jobs == 7


def test_catalogue_is_unchanging_and_can_be_sent() -> None:
    """Settings can't be changed once built, and survive pickling."""
    catalogue = Catalogue(queues={"q": QueueSettings(task="echo")})
    with pytest.raises(ValidationError, match="frozen"):
        catalogue.queues["q"].device = "cpu"  # type: ignore[misc]  # what must fail
    assert pickle.loads(pickle.dumps(catalogue)) == catalogue  # noqa: S301 - our own bytes
