"""What `scripts/bench rivals` computes from what it saw."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks.rivals.asking import Answer, NoAnswer
from benchmarks.rivals.figures import DIRECT, Bar, Figures, bars, best, padding_waste, ratio
from benchmarks.rivals.load import Loop, arrivals, bulk, closed, drained
from benchmarks.rivals.report import BEGIN, END, PAGE, markdown, replaced
from benchmarks.rivals.servers.settings import Settings
from benchmarks.rivals.sides import OURS, SIDES, STOCK

ROOT = Path(__file__).parents[2]
#: A side that none of the tests measures.
RIVAL = "Mosec"


class Echo:
    """Answers at once, but for the first few requests."""

    def __init__(self, misses: int = 0):
        self.asked: list[str] = []
        self._misses = misses

    async def ask(self, text: str, deadline: float | None = None) -> Answer:  # noqa: ARG002  # the seam's signature
        self.asked.append(text)
        if len(self.asked) <= self._misses:
            raise NoAnswer
        return Answer(text, 1.0)

    async def ask_all(self, texts: Sequence[str]) -> list[Answer]:
        return [await self.ask(text) for text in texts]


def figures(
    *, ours: float = 100, rival: float = 50, stock: float = 40, added: float = 2, goodput: float = 1
) -> Figures:
    """Figures of a run in which every bar holds, unless told otherwise."""
    return Figures(
        bulk={OURS: [ours], RIVAL: [rival], STOCK: [stock], DIRECT: [45.0]},
        added_ms={OURS: [added], RIVAL: [14.0], DIRECT: [0.0]},
        opened={OURS: {"0.5": {"goodput": 0.5}, "2": {"goodput": goodput}}},
        wrong={OURS: 0, RIVAL: 0},
    )


def missed(found: Figures) -> list[Bar]:
    """The bars that don't hold."""
    return [bar for bar in bars(found) if not bar.holds]


def test_padding_is_counted_per_batch() -> None:
    """Batches are cut in the order of arrival, each as wide as its longest text, the last one smaller."""
    assert padding_waste([1, 3, 2, 2, 5], 2) == pytest.approx(1 - 13 / (2 * 3 + 2 * 2 + 5))
    assert padding_waste([1, 3, 2], 1) == 0


def test_the_fastest_setting_wins() -> None:
    """A setting that is faster by more than the noise wins; within it the earlier one does."""
    assert best({(4, 0.0): 50.0, (8, 0.0): 60.0}, 0.02) == (8, 0.0)
    assert best({(4, 0.0): 59.5, (8, 0.0): 60.0}, 0.02) == (4, 0.0)


def test_every_bar_can_be_missed() -> None:
    """Nothing is missed in a good run, and each kind of figure alone is enough to miss."""
    assert missed(figures()) == []
    assert [bar.what for bar in missed(figures(rival=70))] == [f"texts/s, {OURS} ÷ {RIVAL}"]
    assert [bar.what for bar in missed(figures(stock=50))] == [f"texts/s, {OURS} ÷ {STOCK}"]
    assert [bar.bar for bar in missed(figures(added=5))] == ["≤ 3"]
    assert [bar.what for bar in missed(figures(goodput=0.9))] == ["goodput at 2 × capacity"]
    wrong = figures()
    wrong.wrong[RIVAL] = 1
    assert len(missed(wrong)) == 1


def test_a_rival_that_adds_less_is_a_miss() -> None:
    """Added latency must be no higher than the lowest rival's, even where it is below the bar."""
    found = figures(added=2)
    found.added_ms[RIVAL] = [1.0]
    assert [bar.value for bar in missed(found)] == [2]


def test_a_ratio_is_of_one_repeat() -> None:
    """Ratios are taken within repeats, so that a slow minute of the machine counts on both sides."""
    found = figures()
    found.bulk = {OURS: [100, 50, 100], RIVAL: [50, 25, 10]}
    assert ratio(found, RIVAL) == 2


def test_capacity_is_the_most_that_was_seen() -> None:
    """The open loop's rates are shares of the best of all loads."""
    found = figures(ours=100)
    found.closed = {OURS: {"16": {"rate": 80.0}, "64": {"rate": 120.0}}}
    assert found.capacity(OURS) == 120
    assert found.capacity(RIVAL) == 50


def test_figures_survive_json() -> None:
    """What --json prints can be shown again with --figures."""
    found = figures()
    assert Figures.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_arrivals_are_repeatable() -> None:
    """The same seed gives the same moments, ascending, at about the rate asked for, within the time."""
    moments = arrivals(100, 50, 7)
    assert moments == arrivals(100, 50, 7) != arrivals(100, 50, 8)
    assert moments == sorted(moments)
    assert moments[0] > 0
    assert moments[-1] < 50
    assert len(moments) == pytest.approx(5000, rel=0.1)


def test_quantiles_need_answers() -> None:
    """A loop in which hardly anything was answered has no latency to speak of."""
    assert Loop(latencies=[1.0]).quantile(0.5) is None
    assert Loop(latencies=[float(each) for each in range(101)]).quantile(0.95) == 95


async def test_closed_loop_asks_each_text_once() -> None:
    """Clients share the texts, and each answer is kept under the number of its text."""
    echo, texts = Echo(), [str(number) for number in range(20)]
    loop = await closed(echo, texts, 3)
    assert sorted(echo.asked[-20:]) == sorted(texts)
    assert {number: answer.label for number, answer in loop.answers.items()} == dict(enumerate(texts))
    assert len(loop.latencies) == loop.asked == 20


async def test_bulk_keeps_order() -> None:
    """Answers stand under the number of their text."""
    loop = await bulk(Echo(), ["a", "b"])
    assert [loop.answers[0].label, loop.answers[1].label] == ["a", "b"]


async def test_draining_is_bounded() -> None:
    """A server that answers again is waited for, one that never does is given up."""
    echo = Echo(misses=3)
    await drained(echo, "a")
    assert len(echo.asked) == 4
    with pytest.raises(NoAnswer):
        await drained(Echo(misses=1000), "a")


def test_settings_survive_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server reads what the benchmark told it."""
    told = Settings(model="m", computing="c", port=1, broker="redis://x/0", queue="q", size=8, wait=0.01, deadline=2.0)
    for name, value in told.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == told


def test_only_the_part_between_the_markers_is_written() -> None:
    """The page's own text stays, what an earlier run wrote goes."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "\nnew\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="needs the lines"):
        replaced("no markers", "new")


def test_the_page_has_its_markers() -> None:
    """The page takes figures, and those that it has name every side that was measured."""
    page = PAGE.read_text("utf-8")
    assert replaced(page, "") != page.replace(BEGIN, "")
    assert RIVAL in markdown(figures())


def test_rivals_run_the_same_libraries() -> None:
    """What computes is of one version on both sides."""
    pins = [
        dict(re.findall(r"(?m)^(torch|transformers|tokenizers)==(\S+)$", path.read_text("utf-8")))
        for path in (ROOT / "constraints.txt", ROOT / "benchmarks/rivals/constraints.txt")
    ]
    assert pins[0] == pins[1]
    assert len(pins[0]) == 3


def test_every_rival_has_a_pin() -> None:
    """The environment is the same each time it is made."""
    text = (ROOT / "benchmarks/rivals/constraints.txt").read_text("utf-8").lower()
    assert [side.package for side in SIDES if side.name != OURS and f"\n{side.package}==" not in text] == []
