"""What the container image and the compose file run, run by hand: same commands, same environment, other paths."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any, Final

import yaml

import pipemill_worker
from pipemill import Client
from tests.e2e.rig import ROOT, Serve
from tests.helpers import until

DOCKERFILE: Final = (ROOT / "docker/Dockerfile").read_text("utf-8")
#: The catalogue that needs no download stands in for the one that is mounted.
CATALOGUE: Final = Path(pipemill_worker.__file__).parent / "demo" / "catalogue.yaml"


def instruction(name: str) -> list[str]:
    """The command of the image's one such instruction, given in exec form."""
    (found,) = re.findall(rf"^{name} ([^\[]*)(\[.*\])$", DOCKERFILE.replace("\\\n", ""), re.MULTILINE)
    command: list[str] = json.loads(found[-1])
    return command


def service() -> dict[str, Any]:
    """The worker's service in the compose file."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text("utf-8"))
    worker: dict[str, Any] = document["services"]["worker"]
    return worker


def stop_signal() -> signal.Signals:
    """What `docker stop` sends first."""
    (name,) = re.findall(r"^STOPSIGNAL (\w+)$", DOCKERFILE, re.MULTILINE)
    return signal.Signals[name]


def test_the_container_serves_is_healthy_and_stops_in_time(serve: Serve, client: Client, tmp_path: Path) -> None:
    """The image's command serves the catalogue, both health checks answer 0, and it ends with 0 in the grace period."""
    worker = service()
    command = [*instruction("ENTRYPOINT"), *worker["command"]]
    assert command == [*instruction("ENTRYPOINT"), *instruction("CMD")]
    assert set(worker["environment"]) == {"PIPEMILL_BROKER"}
    assert "PIPEMILL_HEALTH_FILE=" in DOCKERFILE
    kind, *ready = worker["healthcheck"]["test"]
    assert kind == "CMD"
    here, elsewhere = ({"PIPEMILL_HEALTH_FILE": str(tmp_path / name)} for name in ("ours.json", "nobodys.json"))
    container = serve.run(*command, PIPEMILL_CATALOGUE=str(CATALOGUE), **here)
    serve.wait_until_serving(container, "sentiment", "generator")
    until(lambda: serve.run(*ready, **here).wait() == 0, "the file, written every second, says that it is ready")
    for check in (instruction("HEALTHCHECK"), ready):
        assert serve.run(*check, **here).wait() == 0
        assert serve.run(*check, **elsewhere).wait() != 0, "a health check where no worker is must fail"
    assert client.run("sentiment", "A warm, funny, generous film.", timeout=60)[0]["label"] == "POSITIVE"
    container.send(stop_signal())
    assert container.wait(int(worker["stop_grace_period"].removesuffix("s"))) == 0
    assert serve.run(*instruction("HEALTHCHECK"), **here).wait() != 0, "nor one after its end"
