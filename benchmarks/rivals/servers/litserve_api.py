"""LitServe: a LitAPI with `batch`, `predict` and `unbatch`."""

from collections.abc import Sequence
from typing import Any

import litserve

from benchmarks.rivals.servers.model import Answers, load
from benchmarks.rivals.servers.settings import Settings

SETTINGS = Settings.from_environment()
# LitServe reads the hint of `decode_request` itself, so hints must not be postponed here.


class Classifier(litserve.LitAPI):
    """Answers texts in batches."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's signature
        """Load the model."""
        self._answer = load(SETTINGS)

    def decode_request(self, request: dict[str, Any]) -> str:
        """Take the text out of a request."""
        return str(request["inputs"])

    def batch(self, inputs: Sequence[str]) -> list[str]:
        """Make one list of the texts that came together."""
        return list(inputs)

    def predict(self, texts: list[str]) -> Answers:
        """Answer a batch."""
        return self._answer(texts)

    def unbatch(self, output: Answers) -> Answers:
        """Return one answer per text."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Answer as JSON."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Classifier(max_batch_size=SETTINGS.size, batch_timeout=SETTINGS.wait),
        accelerator="cpu",
        workers_per_device=1,
        timeout=SETTINGS.deadline,
    )
    server.run(host="127.0.0.1", port=SETTINGS.port, generate_client_file=False, log_level="warning")
