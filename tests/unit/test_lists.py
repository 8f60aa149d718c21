"""A queue's lists by themselves: whose turn it is, and that nobody starves. The scripts are held to the same model."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipemill.protocol import encode_arguments, encode_message, message_bytes, message_id, names
from pipemill.store.lists import Lists, Waiting

AGEING = 60.0
TENANTS = ["", "acme", "bolt", "crane"]


def job(tenant: str, number: int = 0, length: int = 10) -> Waiting:
    """A job with inputs of a length."""
    arguments = encode_arguments("x" * length, {})
    return Waiting(encode_message(f"{tenant}-{number}", "q", arguments, tenant=tenant))


def take(lists: Lists, n: int, now: float = 0.0, ageing: float = AGEING) -> list[str]:
    """Take jobs with empty hands; their ids."""
    return [message_id(waiting.raw) or "" for _, waiting in lists.take(n, held=False, now=now, ageing=ageing)[0]]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(TENANTS), st.integers(0, 3_000), st.booleans()), max_size=60),
    st.integers(1, 9),
)
def test_every_job_is_taken_once_and_leaves_nothing(jobs: list[tuple[int, str, int, bool]], n: int) -> None:
    """Whatever came in whatever way, all of it comes out, each tenant's in its order, and no turn is remembered."""
    lists = Lists()
    put: dict[tuple[int, str], list[str]] = {}
    for number, (index, tenant, length, plain) in enumerate(jobs):
        made = job(tenant, number, length)
        if plain:
            lists.push(index, made)
        else:
            lists.add(index, made, fair=True)
        put.setdefault((index, tenant), []).append(message_id(made.raw) or "")
    taken: list[str] = []
    while got := take(lists, n):
        assert len(got) <= n
        taken += got
    assert Counter(taken) == Counter(name for there in put.values() for name in there)
    assert len(lists) == lists.bytes == 0
    assert lists.by_tenant() == {}


@given(st.lists(st.integers(1, 5_000), min_size=2, max_size=4), st.integers(1, 64), st.integers(10, 80))
def test_tenants_that_all_have_jobs_get_the_same(lengths: list[int], n: int, total: int) -> None:
    """However large their jobs are: no two differ by more than the cost of a job of each."""
    lists = Lists()
    costs: dict[str, int] = {}
    for number in range(total):
        for tenant, length in zip([*TENANTS[1:], "dray"], lengths, strict=False):
            made = job(tenant, number, length)
            costs[tenant] = message_bytes(made.raw)
            lists.put_back(0, made, fair=True)
    had: Counter[str] = Counter()
    while True:
        for name in take(lists, n):
            had[name.partition("-")[0]] += costs[name.partition("-")[0]]
        if len(lists.by_tenant()) < len(costs):
            break
        assert max(had.values()) - min(had[tenant] for tenant in costs) <= 2 * max(costs.values())


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 2_000), st.integers(0, 2_000))
def test_a_light_tenants_job_waits_for_no_backlog(backlog: int, before: int, heavy: int, light: int) -> None:
    """However much another one has waiting, no more than the job's own cost, and one job, goes before it."""
    lists = Lists()
    for number in range(backlog):
        lists.add(0, job("flood", number, heavy), fair=True)
    take(lists, min(before, backlog - 1))
    lists.add(0, job("light", 0, light), fair=True)
    order = take(lists, 10_000)
    cost = {"flood": message_bytes(job("flood", 0, heavy).raw), "light": message_bytes(job("light", 0, light).raw)}
    ahead = [name for name in order[: order.index("light-0")] if name.startswith("flood")]
    assert len(ahead) * cost["flood"] <= cost["light"] + 3 * cost["flood"]


@given(st.integers(1, 3), st.integers(1, 64))
def test_a_job_that_is_passed_over_is_taken_in_the_end(index: int, n: int) -> None:
    """Under an endless flood of urgent jobs: not before its time, and with an equal share from then on."""
    lists = Lists()
    lists.add(index, job("", 999), fair=True)
    for moment in range(3):
        for number in range(n):
            lists.add(0, job("", number), fair=True)
        assert "-999" not in take(lists, n, now=float(moment))
    ripe = AGEING * index
    for turn in range(len(names.PRIORITY_STEPS)):
        for number in range(n):
            lists.add(0, job("", number), fair=True)
        if "-999" in take(lists, n, now=ripe + turn):
            break
    else:
        raise AssertionError("the job was never taken")


def test_an_old_backlog_gets_its_share_and_no_more() -> None:
    """What is less urgent and old gets a quarter of all takes; the urgent keep the rest."""
    lists = Lists()
    for number in range(100):
        lists.add(3, job("", 1_000 + number), fair=True)
    taken: list[str] = []
    for moment in range(100):
        for number in range(8):
            lists.add(0, job("", number), fair=True)
        taken += take(lists, 8, now=0.0 if moment < 50 else 1_000.0 + moment)
    old = [name for name in taken if int(name.rpartition("-")[2]) >= 1_000]
    assert (len(taken), len(old)) == (800, 100)
    assert taken[: 50 * 8] == [f"-{number}" for number in range(8)] * 50


def test_without_ageing_the_urgent_always_come_first() -> None:
    """Strict priorities let the others wait for ever."""
    lists = Lists()
    lists.add(3, job("", 999), fair=True)
    for moment in range(10):
        lists.add(0, job("", moment), fair=True)
        assert take(lists, 1, now=moment * 1e6, ageing=0.0) == [f"-{moment}"]


def test_a_queue_that_is_not_fair_keeps_the_order_in_which_jobs_came() -> None:
    """Tenants are told apart by name only."""
    lists = Lists()
    for number, tenant in enumerate(["acme", "acme", "bolt", "acme"]):
        lists.add(0, job(tenant, number), fair=False)
    assert take(lists, 9) == ["acme-0", "acme-1", "bolt-2", "acme-3"]
    assert lists.by_tenant() == {}


@given(st.integers(0, 3_000), st.integers(0, 3_000), st.integers(1, 9), st.sampled_from([0, 1]))
def test_a_tenants_only_job_waits_in_the_plain_list_and_before_its_next(one: int, two: int, n: int, busy: int) -> None:
    """Whatever they cost, and whether or not another tenant has a backlog."""
    lists = Lists()
    for number in range(20 * busy):
        lists.add(0, job("flood", number), fair=True)
    take(lists, busy)
    lists.add(0, job("light", 1, one), fair=True)
    lists.add(0, job("light", 2, two), fair=True)
    assert lists.by_tenant() == ({"flood": 19} if busy else {}) | {"light": 1}
    order: list[str] = []
    while got := take(lists, n):
        order += got
    assert order.index("light-1") < order.index("light-2")
    assert order.index("light-1") <= 1


@given(st.integers(1, 4), st.integers(0, 3_000), st.integers(0, 3_000))
def test_a_tenant_with_one_job_at_a_time_takes_no_more_than_its_share(n: int, one: int, other: int) -> None:
    """Its job may wait where it is seen first, and is paid for all the same, however few are taken in one go."""
    lists = Lists()
    for number in range(400):
        lists.add(0, job("heavy", number, one), fair=True)
    take(lists, 1)
    had: Counter[str] = Counter()
    cost = {"heavy": message_bytes(job("heavy", 0, one).raw), "light": message_bytes(job("light", 0, other).raw)}
    for number in range(40):
        lists.add(0, job("light", number, other), fair=True)
        while taken := take(lists, n):
            for name in taken:
                had[name.partition("-")[0]] += cost[name.partition("-")[0]]
            if any(name.startswith("light") for name in taken):
                break
        assert had["light"] <= had["heavy"] + 3 * max(cost.values())
