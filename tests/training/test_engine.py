"""The training loop: exact continuation, damaged checkpoints, data order, seeds, diverging and falling losses."""

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.data import synthetic
from bench.data.registry import open_split
from bench.errors import BenchError
from bench.experiments import RECIPES, experiment
from bench.training import engine
from bench.zoo import METHODS, build_model
from models.outputs import MaskPrediction

ROOT = Path(__file__).resolve().parents[2]
RECIPE = replace(
    RECIPES["synthetic_panoptic", "small"],
    iterations=6,
    batch_size=2,
    crop_size=(64, 64),
    num_points=64,
    warmup_iterations=2,
    step_fractions=(0.5, 0.8),  # the learning rate changes while the runs below are interrupted
)
IDENTITY = "hcformer_plus-test-seed0"
INTERRUPTED_AFTER = 3


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Cache folder with the first 8 training images of the synthetic data set."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLITS", {"train": 8, "val": 1})
        synthetic.ensure(folder)
    return folder


@pytest.fixture
def dataset(cache):
    return open_split("synthetic_panoptic", "train", cache)


@pytest.fixture
def every_step(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", 0.0)


def tiny_model(method="hcformer+", seed=0, dropout=0.0):
    factors = {} if method == "hcformer" else {"encoder_layers": 1}
    tiny = experiment(method, "small", "synthetic_panoptic", "small", decoder_layers=1, num_queries=8, **factors)
    model = build_model(tiny, seed)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def run(dataset, folder, seed=0, progress=None, model=None, recipe=RECIPE):
    """A training run as of a new process: (state of the model, losses of its steps, result).

    The default model has dropout: to continue it exactly needs the state of the random numbers too.
    """
    model = tiny_model(seed=seed, dropout=0.1) if model is None else model
    losses = []

    def note(done, total, loss):
        losses.append(loss)
        if progress is not None:
            progress(done, total, loss)

    result = engine.train(model, recipe, seed, dataset, folder, IDENTITY, note)
    return {name: value.clone() for name, value in model.state_dict().items()}, losses, result


@pytest.fixture(scope="session")
def uninterrupted(cache, tmp_path_factory):
    return run(open_split("synthetic_panoptic", "train", cache), tmp_path_factory.mktemp("uninterrupted"))


def assert_same(states, expected):
    assert states.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(states[name], expected[name])] == []


class Stop(Exception):
    pass


def stop_after(count):
    def progress(done, total, loss):
        if done > count:  # the checkpoint of this step is not written any more
            raise Stop

    return progress


# Continuing


def test_continues_to_the_bit(dataset, tmp_path, every_step, uninterrupted):
    states, losses, result = uninterrupted
    for count in (2, 4):  # stopped twice
        with pytest.raises(Stop):
            run(dataset, tmp_path, progress=stop_after(count))
        torch.rand(7)  # a new process has another random state
    resumed, tail, continued = run(dataset, tmp_path)
    assert tail == losses[4:]
    assert_same(resumed, states)
    assert (result.resumed, continued.resumed) == (0, 2)
    assert continued.final_loss == result.final_loss == losses[-1]
    assert continued.seconds > 0


def test_finished_run_is_not_trained_again(dataset, tmp_path, uninterrupted):
    run(dataset, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    states, losses, result = run(dataset, tmp_path)
    assert losses == [] and result.final_loss == uninterrupted[2].final_loss
    assert_same(states, uninterrupted[0])
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


CHILD = f"""
import json, sys, time
from pathlib import Path
import torch
from bench.data.registry import open_split
from bench.training import engine
from tests.training.test_engine import run
torch.set_num_threads({{threads}})
engine.CHECKPOINT_SECONDS = 0.0
def progress(done, total, loss):
    if done > {INTERRUPTED_AFTER}:
        print(json.dumps([engine.batch_indices(8, 2, 5, i) for i in range(8)]), flush=True)
        time.sleep(600)
run(open_split("synthetic_panoptic", "train", Path(sys.argv[1])), Path(sys.argv[2]), progress=progress)
"""


def test_killed_process_continues_to_the_bit(cache, dataset, tmp_path, uninterrupted):
    code = CHILD.format(threads=torch.get_num_threads())
    command = [sys.executable, "-c", code, str(cache), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        order = child.stdout.readline()  # it is in its fourth step now
        child.kill()
    assert child.returncode == -signal.SIGKILL
    states, losses, _ = run(dataset, tmp_path)
    assert losses == uninterrupted[1][INTERRUPTED_AFTER:]
    assert_same(states, uninterrupted[0])
    assert json.loads(order) == [engine.batch_indices(8, 2, 5, i) for i in range(8)], "differs between processes"


# Checkpoint files


def test_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run" / "checkpoint.pt"
    assert engine.load_checkpoint(path, "a") is None
    engine.save_checkpoint(path, {"identity": "a", "iteration": 1})

    def half(state, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises((OSError, BenchError)):
        engine.save_checkpoint(path, {"identity": "a", "iteration": 2})
    assert engine.load_checkpoint(path, "a")["iteration"] == 1


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def refused(dataset, path, *words):
    """Training refuses the checkpoint in one line with the words, and leaves it as it is."""
    before = path.read_bytes()
    with pytest.raises(BenchError) as error:
        run(dataset, path.parent)
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in (str(path), "delete it", *words)), message
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def checkpoint_of(identity, folder):
    engine.save_checkpoint(folder / "checkpoint.pt", {"identity": identity, "iteration": 3, "model": torch.zeros(500)})
    return folder / "checkpoint.pt"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_checkpoint(dataset, tmp_path, share):
    path = checkpoint_of(IDENTITY, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(dataset, path, "damaged")


def test_checkpoint_of_another_run(dataset, tmp_path):
    refused(dataset, checkpoint_of("maskformer-seed1", tmp_path), "another run", "maskformer-seed1")


def save_pickle(state, path):
    path.write_bytes(pickle.dumps(state, protocol=2))


@pytest.mark.parametrize("save", [torch.save, save_pickle])
def test_checkpoint_that_runs_code(dataset, tmp_path, save):
    (tmp_path / "run").mkdir()
    path, executed = tmp_path / "run" / "checkpoint.pt", tmp_path / "executed"
    save({"identity": IDENTITY, "model": Bomb(executed)}, path)
    refused(dataset, path, "damaged")
    assert not executed.exists()


@pytest.mark.parametrize("content", [torch.tensor(3), [1, 2], {"iteration": 3}])
def test_file_that_is_no_checkpoint(dataset, tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pt")
    refused(dataset, tmp_path / "checkpoint.pt", "damaged")


def test_checkpoint_without_the_models_weights(dataset, tmp_path):
    refused(dataset, checkpoint_of(IDENTITY, tmp_path), "damaged")


# Diverging


class Breaking(nn.Module):
    """Predicts constants; one of them is `value` from the third step on."""

    def __init__(self, name, value):
        super().__init__()
        self.name, self.value, self.calls = name, value, 0
        self.classes = nn.Parameter(torch.zeros(8, synthetic.NUM_CLASSES + 1))
        self.masks = nn.Parameter(torch.zeros(8, 4, 4))

    def forward(self, images):
        self.calls += 1
        parts = {"classes": self.classes, "masks": self.masks, "scales": self.classes[0, :1]}
        if self.calls > 2:
            parts[self.name] = parts[self.name] + self.value
        classes, masks = (parts[name].expand(len(images), *parts[name].shape) for name in ("classes", "masks"))
        return MaskPrediction(classes, masks, scales=parts["scales"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scales", float("inf")),
        ("scales", float("nan")),
        ("classes", float("nan")),
        ("masks", float("inf")),
    ],
)
def test_loss_that_is_not_finite(dataset, tmp_path, every_step, name, value):
    model = Breaking(name, value)
    with pytest.raises(BenchError, match=r"^(?!.*\n).*iteration 2\b.*learning rate"):
        run(dataset, tmp_path, model=model)
    assert engine.load_checkpoint(tmp_path / "checkpoint.pt", IDENTITY)["iteration"] == 2
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# Data order and seeds


@pytest.mark.parametrize(("length", "batch_size"), [(7, 3), (8, 2), (3, 8)])
def test_every_epoch_shows_every_image_once(length, batch_size):
    steps = [engine.batch_indices(length, batch_size, 1, i) for i in range(4 * length)]
    assert {len(step) for step in steps} == {batch_size}
    positions = sum(steps, [])
    epochs = [positions[i : i + length] for i in range(0, len(positions), length)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1, "the epochs are not shuffled anew"


def test_data_order_depends_on_seed_and_iteration_alone():
    orders = []
    for state in (0, 1):
        torch.manual_seed(state)
        orders.append([engine.batch_indices(100, 8, 2, i) for i in (5, 0, 40)])
    assert orders[0] == orders[1]
    assert engine.batch_indices(100, 8, 2, 0) != engine.batch_indices(100, 8, 3, 0)


def test_batches_depend_on_seed_and_iteration_alone(dataset):
    def batch(seed, iteration):
        torch.rand(1)
        images, targets = engine.make_batch(dataset, RECIPE, seed, iteration)
        assert images.shape == (2, 3, 64, 64)
        assert all(t.masks.shape == (len(t.labels), 64, 64) for t in targets)
        return images

    assert torch.equal(batch(0, 1), batch(0, 1))
    assert not torch.equal(batch(0, 1), batch(0, 2))
    assert not torch.equal(batch(0, 1), batch(1, 1))


def test_seeds_give_other_weights_and_repeat():
    state = torch.get_rng_state()
    models = {name: tiny_model(seed=seed).state_dict() for name, seed in (("a", 0), ("again", 0), ("b", 1))}
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(models["a"], models["again"])
    # Embeddings, attention, convolutions: whatever is drawn at random.
    drawn = [name for name, value in models["a"].items() if value.unique().numel() > 2]
    assert len(drawn) > 20
    assert [name for name in drawn if torch.equal(models["a"][name], models["b"][name])] == []


def test_another_seed_gives_other_losses(dataset, tmp_path, uninterrupted):
    other = run(dataset, tmp_path / "1", seed=1, recipe=replace(RECIPE, iterations=3))[1]
    assert not set(other) & set(uninterrupted[1])


def test_learning_rate_follows_the_schedule(dataset, tmp_path, uninterrupted):
    """Without the step at half of the iterations, the fourth update is another, which the fifth loss shows."""
    losses = run(dataset, tmp_path, recipe=replace(RECIPE, step_fractions=(1.0,)))[1]
    assert losses[:4] == uninterrupted[1][:4]
    assert not set(losses[4:]) & set(uninterrupted[1][4:])


# Learning


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fits_one_batch(dataset, tmp_path, monkeypatch, method):
    recipe = replace(RECIPE, iterations=40, learning_rate=1e-3, step_fractions=(0.9,), warmup_iterations=5)
    batch = engine.make_batch(dataset, recipe, 0, 0)
    monkeypatch.setattr(engine, "make_batch", lambda *args, **kwargs: batch)
    _, losses, result = run(dataset, tmp_path, model=tiny_model(method), recipe=recipe)
    assert len(losses) == 40 and result.final_loss == losses[-1]
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]
