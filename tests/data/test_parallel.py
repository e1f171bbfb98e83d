"""Order, refusals and deaths of the processes that look at images."""

import os
import signal

import pytest

from bench.data import parallel
from bench.data.parallel import in_parallel
from bench.errors import BenchError


@pytest.fixture(params=[1, 2], ids=["here", "two processes"])
def cores(request, monkeypatch):
    monkeypatch.setattr(parallel, "_WORTHWHILE", 16 if request.param == 2 else 10**6)
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    return request.param


def test_answers_come_in_order(cores):
    answers = list(in_parallel(lambda index: f"{index} {os.getpid()}", 50))
    assert [answer.split()[0] for answer in answers] == [str(index) for index in range(50)]
    processes = {answer.split()[1] for answer in answers}
    assert len(processes) == cores and (str(os.getpid()) in processes) == (cores == 1)
    assert list(in_parallel(str, 0)) == [] and list(in_parallel(lambda _: None, 2)) == [None, None]


def test_refusal_is_the_tasks_own_line(cores):
    def task(index):
        if index == 30:
            raise BenchError("disk full: free space")

    with pytest.raises(BenchError, match="^disk full: free space$"):
        list(in_parallel(task, 40))


def test_killed_process_is_a_line(monkeypatch):
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    with pytest.raises(BenchError, match="was killed"):
        list(in_parallel(lambda index: os.kill(os.getpid(), signal.SIGKILL) if index == 20 else None, 40))
