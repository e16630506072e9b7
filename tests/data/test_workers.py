"""Loader processes that die or cannot share: the same batches come all the same, one line says why, and no traceback is printed."""

import errno
import os
import resource
import signal
from dataclasses import dataclass

import pytest
import torch
from torch.utils.data import Dataset, get_worker_info

from vitral.data.workers import stream
from vitral.errors import VitralError


@dataclass(frozen=True)
class Item:
    views: tuple[torch.Tensor, ...]
    number: torch.Tensor


class Batches(Dataset):
    """Batch `n` holds n; in a worker process batch 3 goes wrong in the way that is asked for."""

    def __init__(self, wrong=None):
        self.wrong = wrong

    def __getitem__(self, number):
        if number == 3 and self.wrong is not None and get_worker_info() is not None:
            self.wrong()
        return Item((torch.full((2, 3), number), torch.zeros(0)), torch.tensor([number]))


def raising(error):
    def wrong():
        raise error

    return wrong


def killed_by(number):
    return lambda: os.kill(os.getpid(), number)


def full(self):
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)")


def numbers(batches, count, said, start=0, stop=8):
    return [int(item.number) for item in stream(batches, start, stop, count, said.append)]


@pytest.mark.parametrize(
    ("wrong", "why", "remedy"),
    [
        (killed_by(signal.SIGKILL), "one was killed, as the system does when memory runs out", "fewer --workers"),
        (killed_by(signal.SIGBUS), "the shared memory /dev/shm is full", "--shm-size"),
        (killed_by(signal.SIGSEGV), "one ended by SIGSEGV", "--workers 0"),
        (killed_by(signal.SIGTERM), "one ended by SIGTERM", "--workers 0"),
        (lambda: os._exit(7), "one ended with exit code 7", "--workers 0"),
        (raising(MemoryError()), "a loader process ran out of memory", "fewer --workers"),
    ],
    ids=["oom", "bus", "crash", "terminated", "exit", "memory"],
)
def test_the_batches_go_on_here_and_it_is_said_once(capfd, monkeypatch, wrong, why, remedy):
    # Seconds between looks for the dead, which torch keeps in two places.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data.__defaults__", (0.2,))
    before, said = signal.getsignal(signal.SIGCHLD), []
    assert numbers(Batches(wrong), 2, said) == list(range(8))
    assert len(said) == 1
    assert why in said[0]
    assert remedy in said[0]
    assert "\n" not in said[0]
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGCHLD) == before  # no handler that raises in the middle of a step


def test_full_shared_memory_stops_nothing(capfd, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # the workers are forked from this process
    said = []
    assert numbers(Batches(), 2, said, 5, 9) == [5, 6, 7, 8]
    assert len(said) == 1
    assert "/dev/shm is full" in said[0]
    assert "MiB in all" in said[0]
    assert capfd.readouterr() == ("", "")


def test_no_process_to_be_had(monkeypatch):
    def refused(*given, **named):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("multiprocessing.popen_fork.os.fork", refused)
    said = []
    assert numbers(Batches(), 2, said, 0, 3) == [0, 1, 2]
    assert "no loader process could be started" in said[0]


def test_too_many_open_files():
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    held, said = [], []
    given = stream(Batches(), 0, 600, 1, said.append)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, most))
        held = [next(given) for _ in range(600)]  # each keeps its shared memory open
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))
    assert [int(item.number) for item in held] == list(range(600))
    assert len(said) == 1
    assert "too many files are open" in said[0]
    assert "ulimit -n" in said[0]


def test_a_person_is_told_without_a_listener(capfd):
    assert len(list(stream(Batches(raising(MemoryError())), 0, 5, 1))) == 5
    assert capfd.readouterr().err.count("\n") == 1


def test_errors_of_the_data_and_faults_of_ours_are_not_taken_for_it():
    said = []
    with pytest.raises(VitralError, match="a bad image"):
        numbers(Batches(raising(VitralError("a bad image"))), 2, said)
    with pytest.raises(KeyError, match="Caught KeyError"):
        numbers(Batches(raising(KeyError("a fault"))), 2, said)
    assert said == []


def test_processes_and_none_give_the_same():
    for count in (0, 1, 3):
        assert numbers(Batches(), count, []) == list(range(8))
    endless = stream(Batches(), 5, None, 1)
    assert [int(next(endless).number) for _ in range(4)] == [5, 6, 7, 8]
    endless.close()
