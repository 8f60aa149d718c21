"""The self-check at the start of a lane: what is tried, what is compared, what follows."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import linear

from pipemill.errors import InvalidInput, ModelLoadError
from pipemill_worker.pipelines import prepacked
from pipemill_worker.pipelines.canaries import canaries
from pipemill_worker.pipelines.difference import difference
from pipemill_worker.pipelines.packing.rows import Rows
from pipemill_worker.pipelines.rules import TASK_RULES, Sharing
from pipemill_worker.pipelines.runner import TransformersRunner
from pipemill_worker.pipelines.warming import warm_up
from pipemill_worker.seams import Item, Prepared
from tests.unit.pipelines.tiny import (
    Settings,
    padding_runner_of,
    runner_of,
    sentence,
    tiny_pipeline,
    unchecked,
)

_NARROWER = {Sharing.PADDED: Sharing.EXACT, Sharing.EXACT: Sharing.SOLO}


class Disturbed:
    """A runner whose scores shift when items share a pass in certain ways."""

    def __init__(self, *disturbing: Sharing, shift: float = 0.5, drift: float = 0.0):
        self.sharing = Sharing.PADDED
        self.settled = False
        self._disturbing = disturbing
        self._shift = shift
        #: What products of others add to scores of a shared pass; alone, half of it.
        self.drift = drift
        self.batches: list[int] = []

    @property
    def layout(self) -> Disturbed:
        """It tells that, too."""
        return self

    def as_loaded(self) -> AbstractContextManager[None]:
        """It is, with torch's products."""
        return self.multiplying_plainly()

    def padding(self) -> AbstractContextManager[None]:
        """It always does."""
        return nullcontext()

    @contextmanager
    def multiplying_plainly(self) -> Iterator[None]:
        """As the real one."""
        drift, self.drift = self.drift, 0.0
        yield
        self.drift = drift

    @property
    def multiplies(self) -> bool:
        """Whether products of others add something to scores."""
        return self.drift != 0.0

    def multiply_plainly(self) -> None:
        """As the real one."""
        self.drift = 0.0

    def share_less(self) -> None:
        """As the real one."""
        self.sharing = _NARROWER[self.sharing]

    def prepare_checked(self, inputs: Any, parameters: dict[str, Any]) -> Prepared:
        """One item, which shares with all; or a refusal."""
        if "refuse" in parameters:
            raise InvalidInput("of another form")
        return Prepared([Item(None if self.sharing is Sharing.SOLO else "all", 1, inputs)])

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        """Each item's length, shifted in a batch that disturbs."""
        if any(item.payload == "break" for item in items):
            raise RuntimeError("no such operator")
        self.batches.append(len(items))
        shift = self._shift if len(items) > 1 and self.sharing in self._disturbing else 0.0
        shift += self.drift if len(items) > 1 else self.drift / 2
        return [len(item.payload) + shift for item in items]

    def finish(self, _: Prepared, outputs: Sequence[Any]) -> Any:
        """The score."""
        return {"score": outputs[0]}

    def is_device_lost(self, error: BaseException) -> bool:
        """Whether the device is gone."""
        return "device" in str(error)


JOBS = [("a", {}), ("bb", {}), ("cc", {})]


def test_an_undisturbed_model_shares_as_meant() -> None:
    """Alone, then together: equal answers change nothing."""
    runner = Disturbed()
    check = warm_up("q", "m", runner, JOBS, 1e-4)
    assert runner.batches == [1, 1, 1, 3]
    assert check.describe() == {"meant": "padded", "sharing": "padded", "difference": 0.0}


def test_a_disturbed_model_falls_back(caplog: pytest.LogCaptureFixture) -> None:
    """A model that padding disturbs goes on with exact shapes, and the log says so."""
    runner = Disturbed(Sharing.PADDED)
    with caplog.at_level(logging.WARNING, "pipemill.worker"):
        check = warm_up("q", "m", runner, JOBS, 1e-4)
    assert runner.sharing is Sharing.EXACT
    assert check.describe()["meant"] == "padded"
    assert check.describe()["sharing"] == "exact"
    (record,) = caplog.records
    assert getattr(record, "event", None) == "sharing_narrowed"
    assert "queue q" in record.getMessage()


def test_a_model_that_mixes_rows_runs_items_alone() -> None:
    """A model whose answers differ in any batch shares none."""
    runner = Disturbed(Sharing.PADDED, Sharing.EXACT)
    assert warm_up("q", "m", runner, JOBS, 1e-4).sharing is Sharing.SOLO


def test_the_tolerance_is_the_queues() -> None:
    """A queue that takes larger differences keeps its padding."""
    runner = Disturbed(Sharing.PADDED, shift=0.005)
    check = warm_up("q", "m", runner, JOBS, 0.01)
    assert check.sharing is Sharing.PADDED
    assert check.difference == pytest.approx(0.005, rel=0.5)


def test_a_refused_job_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Models that want prompts of their own form start all the same."""
    with caplog.at_level(logging.WARNING, "pipemill.worker"):
        check = warm_up("q", "m", Disturbed(), [("a", {"refuse": True})], 1e-4)
    assert check.difference is None
    assert check.sharing is Sharing.EXACT  # Nothing was proven.
    assert "doesn't suit the model" in caplog.text


def test_what_products_add_is_not_laid_to_sharing() -> None:
    """Where batches agree without them, they go, and items share on; where they don't, they stay, and items don't."""
    jobs = [("a", {}), ("bb", {}), ("ccc", {})]
    runner = Disturbed(drift=1.5e-4)
    check = warm_up("q", "m", runner, jobs, 1e-4)
    assert (check.sharing, check.difference, runner.multiplies) == (Sharing.PADDED, 0.0, False)
    runner = Disturbed(Sharing.PADDED, drift=0.5e-4)
    check = warm_up("q", "m", runner, jobs, 1e-4)
    assert (check.sharing, runner.multiplies) == (Sharing.EXACT, True)


def test_products_of_what_writes_beside_another_engine_are_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's answers say nothing of ours: wrong ones are found by the jobs that are written alone."""
    monkeypatch.setattr(prepacked, "gaining_rows", lambda _: range(1, sys.maxsize))
    monkeypatch.setattr(prepacked, "_multiply", lambda inputs, packed, bias: -linear(inputs, packed, bias))
    monkeypatch.setattr(prepacked, "_packed", lambda weight: weight)
    settings = Settings(task="text-generation", engine="continuous")
    pipe = tiny_pipeline("text-generation", "llama")
    runner = TransformersRunner("tiny", pipe, settings, validate=unchecked)
    assert runner.writer is not None
    assert runner.multiplies
    runner.warm_up()
    assert runner.writer is not None
    assert (runner.describe()["products"], runner.writer.products) == ("torch", {})


def test_a_guessed_form_that_fails_says_nothing_of_the_model() -> None:
    """Where the form of a prompt is a guess, what it breaks isn't held against the model; a lost device is."""
    check = warm_up("q", "m", Disturbed(), [("break", {}), ("a", {}), ("bb", {})], 1e-4, guessed=True)
    assert check.sharing is Sharing.PADDED
    runner = Disturbed()
    runner.is_device_lost = lambda _: True  # type: ignore[method-assign]  # as after a CUDA error
    with pytest.raises(ModelLoadError):
        warm_up("q", "m", runner, [("break", {})], 1e-4, guessed=True)


def test_a_model_that_cannot_run_ends_the_start() -> None:
    """What can't run one job is not served."""
    with pytest.raises(ModelLoadError, match=r"queue 'q': model 'm' is loaded but can't run: RuntimeError: no such op"):
        warm_up("q", "m", Disturbed(), [("break", {})], 1e-4)


def test_a_real_model_without_its_mask_falls_back() -> None:
    """A BERT that sees its padding answers otherwise in padded batches: found at the start, and batched by length."""
    pipe = tiny_pipeline("text-classification")
    forward = pipe.model.forward

    def blind(input_ids: Any = None, attention_mask: Any = None, **others: Any) -> Any:
        return forward(input_ids=input_ids, attention_mask=torch.ones_like(attention_mask), **others)

    pipe.model.forward = blind
    runner = padding_runner_of("text-classification", pipe)
    runner.warm_up()
    check = runner.describe()["self_check"]
    assert check["sharing"] == runner.describe()["sharing"] == "exact"
    assert check["meant"] == "padded"
    assert check["difference"] == "other answers" or check["difference"] > 1e-4


def test_a_half_precision_model_is_told_by_its_difference() -> None:
    """Padding moves a bfloat16 model's scores by more than a float32's: the check measures, and obeys the tolerance."""
    pipe = tiny_pipeline("feature-extraction")
    pipe.model.to(torch.bfloat16)
    runner = padding_runner_of("feature-extraction", pipe)
    runner.warm_up()
    assert runner.describe()["self_check"]["difference"] > 1e-4
    assert runner.sharing is Sharing.EXACT


def test_the_check_knows_the_model_as_it_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of another library that answer otherwise are found, and no longer used."""
    monkeypatch.setattr(prepacked, "gaining_rows", lambda _: range(1, sys.maxsize))
    monkeypatch.setattr(prepacked, "_multiply", lambda inputs, packed, bias: linear(inputs, packed, bias) + 1)
    monkeypatch.setattr(prepacked, "_packed", lambda weight: weight)
    pipe = tiny_pipeline("text-classification")
    expected = pipe("some text")[0]["score"]
    runner = runner_of("text-classification", pipe)
    assert pipe("some text")[0]["score"] != pytest.approx(expected, abs=1e-5)
    assert runner.describe()["products"] == "oneDNN"
    runner.warm_up()
    assert runner.sharing is Sharing.PACKED
    assert runner.describe()["products"] == "torch"
    assert pipe("some text")[0]["score"] == pytest.approx(expected, abs=1e-6)


def test_products_of_what_writes_are_proven_once_it_writes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong ones end writing together, and then their own use: batches are made as without them."""
    monkeypatch.setattr(prepacked, "gaining_rows", lambda _: range(1, sys.maxsize))
    monkeypatch.setattr(prepacked, "_multiply", lambda inputs, packed, bias: -linear(inputs, packed, bias))
    monkeypatch.setattr(prepacked, "_packed", lambda weight: weight)
    runner = runner_of("text-generation", tiny_pipeline("text-generation", "llama"))
    assert runner.writer is not None
    assert not runner.multiplies
    runner.warm_up()
    assert runner.writer is None
    assert runner.describe()["products"] == "torch"
    assert runner.sharing is Sharing.EXACT


def test_products_that_nothing_proved_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass through them that fails is found at the start, whether or not jobs share passes; jobs are answered."""
    monkeypatch.setattr(prepacked, "gaining_rows", lambda _: range(1, sys.maxsize))
    pipe = tiny_pipeline("text-classification")
    runner = runner_of("text-classification", pipe)
    assert runner.multiplies

    def broken(*_: Any) -> Any:
        raise RuntimeError("could not execute a primitive")

    monkeypatch.setattr(prepacked, "_multiply", broken)
    runner.warm_up()
    assert not runner.multiplies
    assert runner.sharing is Sharing.PACKED


def test_packing_that_disturbs_gives_way_to_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed encoder whose rows see each other is found at the start, and padded from then on."""
    monkeypatch.setattr(Rows, "runs", lambda _, tensor: [tensor.unsqueeze(0)])
    runner = runner_of("text-classification", tiny_pipeline("text-classification"))
    runner.warm_up()
    check = runner.describe()["self_check"]
    assert (check["meant"], check["sharing"]) == ("packed", "padded")


@pytest.mark.parametrize("task", [task for task in TASK_RULES if "audio" not in task and "speech" not in task])
def test_every_task_has_canaries(task: str) -> None:
    """Four jobs of a task, two of them of one size and the others of other sizes."""
    pipe = tiny_pipeline("text-classification")
    jobs = canaries(task, pipe, 512)
    assert len(jobs) == 4
    assert len({repr(inputs) for inputs, _ in jobs}) > 1


def edged(pixels: int) -> Image.Image:
    """A mask of 64 × 64 pixels of which so many are set."""
    mask = np.zeros(64 * 64, np.uint8)
    mask[:pixels] = 255
    return Image.fromarray(mask.reshape(64, 64))


def masked(label: str, pixels: int) -> dict[str, Any]:
    """A segment of so many pixels."""
    return {"label": label, "mask": edged(pixels)}


def found(score: float, left: int) -> dict[str, Any]:
    """An object that was found."""
    return {"score": score, "label": "cat", "box": {"xmin": left}}


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ({"score": 0.5, "label": "a"}, {"score": 0.75, "label": "a"}, 0.25),
        ({"label": "a"}, {"label": "b"}, math.inf),
        ({"a": 1}, {"b": 1}, math.inf),
        ([1.0, 2.0], [1.0], math.inf),
        ((1, 2), [1, 2], 0.0),
        ([100.0], [101.0], 0.01),
        ([0.5, 100.0], [0.25, 101.0], 0.25),
        ([0.5, 1.0, 2.0], [0.5, 1.0], math.inf),
        ([0.5, "a"], [0.75, "a"], 0.25),
        (math.nan, math.nan, 0.0),
        (math.nan, 1.0, math.inf),
        (math.inf, -math.inf, math.inf),
        (True, 1, 0.0),
        (np.array([1, 2]), np.array([1, 2]), 0.0),
        (np.array([0.5]), np.array([0.25]), 0.25),
        (np.zeros((2, 3)), np.zeros((3, 2)), math.inf),
        (np.zeros(0), np.zeros(0), 0.0),
        (torch.tensor([0.5], dtype=torch.bfloat16), torch.tensor([0.5], dtype=torch.bfloat16), 0.0),
        (Image.new("L", (2, 2), 7), Image.new("L", (2, 2), 8), 0.0),
        (Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 255), 1.0),
        (Image.new("L", (64, 64), 0), edged(2), 0.0),
        (Image.new("L", (64, 64), 0), edged(32), 1 / 128),
        ([{"label": "sky", "mask": edged(64)}, {"label": "dog", "mask": edged(2)}], [masked("sky", 64)], 0.0),
        ([masked("sky", 64)], [masked("dog", 64)], math.inf),
        ([found(0.5, 12), found(0.25, 7)], [found(0.25, 7), found(0.5, 13)], 0.0),
        ([found(0.5, 12)], [found(0.25, 12)], 0.25),
        ([found(0.5, 12)], [], math.inf),
        (Image.new("L", (2, 2)), Image.new("L", (2, 3)), math.inf),
    ],
)
def test_differences(one: Any, other: Any, apart: float) -> None:
    """Numbers differ by how much, relative to large ones; everything else differs or doesn't."""
    assert difference(one, other) == pytest.approx(apart)


def test_warm_up_leaves_jobs_as_they_were() -> None:
    """A lane answers the same after its self-check."""
    import random  # noqa: PLC0415  # used here only

    pipe = tiny_pipeline("fill-mask")
    runner = runner_of("fill-mask", pipe)
    runner.warm_up()
    text = sentence(random.Random(1)) + " [MASK]"
    prepared = runner.prepare(text, {})
    answer = runner.finish(prepared, runner.forward(prepared.items))
    assert difference(answer, pipe(text)) < 1e-5


class BringsToken:
    """A processor as BLIP-2's: it puts the image's token before the text itself."""

    image_token = "[MASK]"  # noqa: S105  # no secret, and any that its tokenizer knows

    def __init__(self, tokenizer: Any, *, brings: bool):
        self.tokenizer = tokenizer
        self._brings = brings

    def __call__(self, images: Any, text: str, **options: Any) -> Any:
        """Token ids of an image and a text."""
        assert images is not None
        if not self._brings:
            raise ValueError("the text has 0 images")
        return self.tokenizer(f"{self.image_token} {text}", **options)


@pytest.mark.parametrize(("brings", "marks"), [(True, 0), (False, 1)])
def test_a_prompt_has_its_images_token_once(brings: bool, marks: int) -> None:  # noqa: FBT001  # a parameter
    """A model whose processor brings the token would fail on two, and its worker not start."""
    pipe = tiny_pipeline("text-classification")
    pipe.processor = BringsToken(pipe.tokenizer, brings=brings)
    for inputs, _ in canaries("image-text-to-text", pipe, 512):
        assert inputs["text"].count("[MASK]") == marks


def test_two_canaries_are_of_one_length() -> None:
    """Or nothing would be tried of sharing by equal lengths."""
    pipe = tiny_pipeline("fill-mask")
    for task in ("text-classification", "fill-mask", "question-answering", "text-generation"):
        texts = [inputs["context"] if isinstance(inputs, dict) else inputs for inputs, _ in canaries(task, pipe, 200)]
        lengths = [len(pipe.tokenizer(text)["input_ids"]) for text in texts]
        assert lengths[1] == lengths[2]
        assert texts[1] != texts[2]
        assert len(set(lengths)) == 3


@pytest.mark.parametrize("task", ["object-detection", "token-classification", "zero-shot-object-detection"])
def test_canaries_leave_nothing_out(task: str) -> None:
    """Of nonsense, models find nothing that they are sure of: whatever they find is compared, or nothing would be."""
    for _, parameters in canaries(task, tiny_pipeline("text-classification"), 512):
        assert parameters.get("threshold") == 0.0 or parameters.get("ignore_labels") == []


def test_a_model_that_names_no_entity_is_checked_all_the_same() -> None:
    """A token classifier that labels all tokens O would compare empty answers, and find no difference."""
    pipe = tiny_pipeline("token-classification")
    pipe.model.classifier.bias.data[0] += 1_000
    forward = pipe.model.forward

    def blind(input_ids: Any = None, attention_mask: Any = None, **others: Any) -> Any:
        outputs = forward(input_ids=input_ids, attention_mask=attention_mask, **others)
        outputs.logits[..., 1] += 1_000 * len(input_ids)  # As many as there are rows: a neighbour is seen.
        return outputs

    pipe.model.forward = blind
    runner = runner_of("token-classification", pipe)
    runner.warm_up()
    assert runner.sharing is Sharing.SOLO
