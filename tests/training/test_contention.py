"""Other work on the cores is seen and answered by rules; the times are made up, so that nothing depends on the machine."""

from dataclasses import replace

import pytest
import torch

from vitral.training import contention
from vitral.training.contention import Contention, Times, read_times
from vitral.training.run import slower_than

QUIET = Times(
    now=20.0, busy=38.0, own=38.0, ran=38.0, waited=1.0
)  # twenty seconds later, of which two threads computed
BESIDE = replace(QUIET, busy=39.0, own=20.0, ran=20.0, waited=18.0)  # another process had a core


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def plus(a: Times, b: Times) -> Times:
    return Times(*(getattr(a, name) + getattr(b, name) for name in ("now", "busy", "own", "ran", "waited")))


def looks(may_change: bool, later: list[Times], took: dict[int, float]) -> list[tuple[str | None, int]]:
    """What is said and the number of threads after each look."""
    times = [Times(0, 0, 0, 0, 0)]
    for each in later:
        times.append(plus(times[-1], each))
    watch = Contention(may_change=may_change, read=lambda: times.pop(0), clock=lambda: times[0].now)
    watch_next = []
    for _ in later:
        said = watch.look(took.__getitem__)
        watch.next = float("-inf")
        watch_next.append((said, torch.get_num_threads()))
    return watch_next


def test_a_run_by_the_clock_takes_fewer_threads_while_that_is_faster(two_threads):
    first, same, done, quiet = looks(True, [BESIDE, replace(BESIDE, waited=1.0), QUIET, QUIET], {2: 0.4, 1: 0.1})
    assert first == (
        "other work takes about 0.9 of the cores, and this run waits for them: a forward pass takes 0.40 s with 2 threads and 0.10 s with 1; "
        "going on with 1",
        1,
    )  # fmt: skip
    assert same == (None, 1)
    assert done == ("the other job is done: 2 threads again", 2)
    assert quiet == (None, 2)


def test_a_run_of_steps_keeps_its_threads_and_says_once_what_to_do(two_threads):
    (said, threads), again = looks(False, [BESIDE, BESIDE], {2: 0.4, 1: 0.1})
    assert "put OMP_NUM_THREADS=1 before the command with --resume" in said
    assert threads == 2
    assert again == (None, 2)


def test_where_fewer_threads_are_not_faster_they_stay(two_threads):
    (said, threads), again = looks(True, [BESIDE, BESIDE], {2: 0.4, 1: 0.39})
    assert said.endswith("fewer threads would not be faster")
    assert threads == 2
    assert again == (None, 2)


@pytest.mark.parametrize(
    "times",
    [
        QUIET,
        replace(BESIDE, waited=1.0),  # others work, but hold up nothing
        replace(BESIDE, own=39.0),  # the run's own processes
        replace(BESIDE, now=contention.EVERY / 2),  # too short to say
    ],
)
def test_nothing_is_said_without_reason(two_threads, times):
    assert looks(True, [times], {}) == [(None, 2)]


def test_where_the_system_tells_nothing_nothing_is_seen():
    assert Contention(may_change=True, read=lambda: None).look({}.__getitem__) is None


def test_the_times_go_on():
    before = read_times()
    if before is None:
        pytest.skip("this system does not tell")
    torch.ones(400, 400).mm(torch.ones(400, 400))
    after = read_times()
    assert after.now > before.now
    assert after.own > before.own
    assert after.busy >= before.busy


def test_a_run_far_behind_its_plan_is_said():
    foreseen = {"epochs": 30.0, "seconds": 600.0}
    assert slower_than(foreseen, 16.0, 600.0, by_clock=True) is None
    assert slower_than(foreseen, 10.0, 600.0, by_clock=True).startswith(
        "only 10.0 epochs were made in 10:00, where the plan foresaw 30.0; the machine was slower"
    )
    assert slower_than(foreseen, 30.0, 1000.0, by_clock=False) is None
    assert slower_than(foreseen, 30.0, 1800.0, by_clock=False).startswith(
        "training took 30:00, where the plan foresaw 10:00; the machine was slower"
    )
    assert slower_than({}, 1.0, 600.0, by_clock=True) is None
    assert slower_than({"epochs": 30.0, "seconds": 6.0}, 1.0, 59.0, by_clock=True) is None
