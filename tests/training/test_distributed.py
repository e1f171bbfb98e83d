"""Two processes that torchrun starts: the same training as one, continued to the bit, ended by signals."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.data.registry import open_split
from bench.data.synthesis import synthetic
from bench.errors import BenchError
from bench.experiments import RECIPES, experiment
from bench.training import engine
from bench.training.distributed import World, join
from bench.zoo import build_model
from tests.conftest import few_scenes

ROOT = Path(__file__).resolve().parents[2]
STEPS, KILLED_IN = 4, 3
SIZES = {"train": 8, "val": 1}
RECIPE = replace(
    RECIPES["synthetic_panoptic", "small"], iterations=STEPS, batch_size=4, crop_size=(64, 64), num_points=64,
    keep_emptied=True, class_loss_images=2,
)  # fmt: skip
TINY = {"decoder_layers": 1, "num_queries": 8}


def run(cache, folder, execution, progress=lambda report: None):
    """Trains a model with trainable batch norm: losses and final state."""
    torch.set_num_threads(1)
    synthetic.SPLITS = SIZES
    engine.CHECKPOINT_SECONDS = 0.0
    dataset = open_split("synthetic_panoptic", "train", cache)
    model = build_model(experiment("hcformer", "small", "synthetic_panoptic", "small", **TINY), 0)
    losses = []
    engine.train(
        model, RECIPE, 0, dataset, folder, "test", lambda r: (progress(r), losses.append(r.loss)), execution
    )  # fmt: skip
    return losses, model.state_dict()


# arguments: cache, folder, and "kill" to end one process hard in its step KILLED_IN (counted from 1), or "bf16" with a
# gradient that is not finite there, in the second process alone
CHILD = f"""
import os, signal, sys
from pathlib import Path
import torch
from bench.errors import BenchError
from bench.training import update
from bench.training.distributed import join
from bench.training.engine import Execution
from tests.training.test_distributed import run
cache, folder = map(Path, sys.argv[1:3])
step = update.Updater.step
def killing(self, iteration, *rest):
    if iteration + 1 == {KILLED_IN} and self.world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, iteration, *rest)
if sys.argv[3:] == ["kill"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which torchrun sends the other one: it is to say what it sees
    update.Updater.step = killing
backward = update.Updater._backward
def breaking(self, iteration, *rest):
    result = backward(self, iteration, *rest)
    if iteration + 1 == {KILLED_IN} and self.world.rank == 1:
        next(p for p in self.model.parameters() if p.grad is not None).grad.fill_(float("inf"))
    return result
precision = None
if sys.argv[3:] == ["bf16"]:
    precision, update.Updater._backward = "bf16", breaking
try:
    with join() as world:
        assert world.size == 2
        losses, state = run(cache, folder, Execution(world, precision))
except BenchError as error:
    sys.exit(f"error: {{error}}")
torch.save((losses, state), folder / f"result{{world.rank}}.pt")
"""


def torchrun(*arguments, module="torch.distributed.run", **kwargs):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", module, "--standalone", "--nproc-per-node", "2", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment | kwargs, **pipes)


def end(process):
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "child.py"
    path.write_text(CHILD)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return few_scenes(tmp_path_factory, **SIZES)


@pytest.fixture
def alone(cache, tmp_path):
    """The same training in this process."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLITS", SIZES)
        patch.setattr(engine, "CHECKPOINT_SECONDS", 0.0)
        yield run(cache, tmp_path / "alone", engine.Execution(World(device=torch.device("cpu"))))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def straight(program, cache, tmp_path_factory):
    """Losses and the states of both processes, of a training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("straight")
    code, output = end(torchrun(program, cache, folder))
    assert code == 0, output
    return [torch.load(folder / f"result{rank}.pt") for rank in range(2)]


def test_all_processes_leave_an_update_out_together(program, cache, tmp_path):
    """Where one of them alone has a gradient that is not finite; they end with the same bits."""
    code, output = end(torchrun(program, cache, tmp_path, "bf16"))
    assert code == 0, output
    (_, state), (_, other) = (torch.load(tmp_path / f"result{rank}.pt") for rank in range(2))
    assert [name for name in state if not torch.equal(state[name], other[name])] == []
    assert all(value.isfinite().all() for value in state.values())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1]


def test_two_processes_give_the_losses_of_one(alone, straight):
    """Also its weights and the running statistics of its batch norms; and both processes end with the same bits."""
    (losses, state), (_, other) = straight
    assert losses == pytest.approx(alone[0], rel=1e-5)
    assert [name for name in state if not torch.equal(state[name], other[name])] == []
    for name, value in alone[1].items():
        torch.testing.assert_close(
            state[name], value, rtol=1e-3, atol=2e-4, msg=lambda text, name=name: f"{name} {text}"
        )
    running = [name for name in state if name.endswith(("running_mean", "running_var"))]
    assert len(running) > 10
    for name in running:
        torch.testing.assert_close(state[name], alone[1][name], rtol=1e-3, atol=1e-4)


def test_two_processes_continue_to_the_bit(program, cache, tmp_path, straight):
    code, output = end(torchrun(program, cache, tmp_path, "kill"))
    assert code != 0 and not (tmp_path / "result0.pt").exists()
    assert "error: process 0 lost the others, see what they say (" in output
    assert torch.load(tmp_path / "checkpoint.pt")["iteration"] == KILLED_IN - 1, output
    code, output = end(torchrun(program, cache, tmp_path))
    assert code == 0, output
    losses, state = torch.load(tmp_path / "result0.pt")
    assert losses == straight[0][0][KILLED_IN - 1 :]
    assert [name for name in state if not torch.equal(state[name], straight[0][1][name])] == []
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == straight[0][0], "one log, by the first process"


# The environment


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_variables_that_make_no_sense(monkeypatch, name):
    for variable, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", name: "first"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(BenchError, match=r"^RANK, WORLD_SIZE and LOCAL_RANK must be numbers: .*torchrun$"), join():
        pass


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with join() as world:
        assert (world.rank, world.size, world.is_main, world.share(3)) == (0, 1, True, range(3))


def test_nobody_to_meet(monkeypatch):
    for variable, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(variable, value)
    for variable in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BenchError, match=r"^(?!.*\n)cannot reach the other processes .*torchrun$"), join():
        pass


def test_more_processes_than_gpus(monkeypatch):
    for variable, value in {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BenchError, match=r"^3 processes on a machine with 2 GPU\(s\): --nproc_per_node .* at most 2$"):
        with join():
            pass


def test_gradients_are_summed_in_pieces(monkeypatch):
    """Pieces of at most the bucket's size, every gradient in one of them, in order; those without one are left out."""
    monkeypatch.setattr("bench.training.distributed.BUCKET", 10)
    sizes = [4, 3, 5, 12, 0, 2]
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes] + [torch.nn.Parameter(torch.zeros(9))]
    for number, parameter in enumerate(parameters[:-1], start=1):
        parameter.grad = torch.full_like(parameter, number)
    pieces = []

    class Twice(World):
        def sum(self, tensor):
            pieces.append(tensor.tolist())
            return tensor.mul_(2)

    Twice(0, 2).sum_gradients(parameters)
    assert pieces == [[1] * 4 + [2] * 3, [3] * 5, [4] * 12, [6] * 2]
    assert [parameter.grad.unique().tolist() for parameter in parameters[:-1]] == [[2], [4], [6], [8], [], [12]]
    assert parameters[-1].grad is None
