"""The training loop: exact continuation, damaged checkpoints, data order, seeds, diverging and falling losses."""

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.cli.train import _StopRequest
from bench.data.registry import open_split
from bench.data.synthesis import scenes
from bench.errors import BenchError
from bench.experiments import RECIPES, experiment
from bench.experiments.methods import METHODS
from bench.training import engine
from bench.training.batches import batch_indices, make_batch
from bench.training.checkpoint import load_checkpoint, save_checkpoint
from bench.training.distributed import Stopped, World
from bench.training.engine import CHECKPOINT, Execution
from bench.training.pixel_criterion import PixelCriterion
from bench.training.progress import LOG, Meter, StepReport, TrainingLog
from bench.training.update import Updater
from bench.zoo import build_model
from models.backbones.resnet import FrozenBatchNorm2d, ResNet
from models.hcformer import hcformer
from models.outputs import MaskPrediction
from tests.conftest import few_scenes

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

OTHER_SEED = "'bench train ROW --seed N' takes another seed, which no table counts"
IDENTITY = "hcformer_plus-test-seed0"
INTERRUPTED_AFTER = 3


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Cache folder with the first 8 training images of the synthetic data set."""
    return few_scenes(tmp_path_factory, train=8, val=1)


@pytest.fixture
def dataset(cache):
    return open_split("synthetic_panoptic", "train", cache)


def test_a_crop_that_is_padded(dataset):
    """Masks are padded as the image is: at its right and bottom, with nothing."""
    recipe, seen = replace(RECIPE, crop_size=(50, 40)), []
    batch = make_batch(dataset, recipe, 0, 0)

    class Criterion(nn.Module):
        count = staticmethod(lambda labels, masks: len(labels))

        def forward(self, prediction, targets, part):
            seen.append((prediction, targets))
            return {"loss": prediction.sum()}

    world = World(device=torch.device("cpu"))
    updater = Updater(nn.Conv2d(3, 1, 1), recipe, 0, 10, world, [range(2)], "float32", Criterion())
    updater.step(0, batch)
    ((prediction, targets),) = seen
    assert prediction.shape[-2:] == (64, 64)
    for target, masks in zip(targets, batch.masks, strict=True):
        assert target.masks.shape == (len(masks), 64, 64) and target.masks.dtype == torch.bool
        assert torch.equal(target.masks[:, :50, :40], masks) and target.masks.sum() == masks.sum()


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


def run(dataset, folder, seed=0, progress=None, model=None, recipe=RECIPE, execution=None):
    """A training run as of a new process: (state of the model, losses of its steps, result).

    The default model has dropout: to continue it exactly needs the state of the random numbers too.
    """
    model = tiny_model(seed=seed, dropout=0.1) if model is None else model
    losses = []

    def note(report):
        losses.append(report.loss)
        if progress is not None:
            progress(report)

    result = engine.train(model, recipe, seed, dataset, folder, IDENTITY, note, execution)
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
    def progress(report):
        if report.iteration > count:  # the checkpoint of this step is not written any more
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
from bench.training.batches import batch_indices
from tests.training.test_engine import run
torch.set_num_threads({{threads}})
engine.CHECKPOINT_SECONDS = 0.0
def progress(report):
    if report.iteration > {INTERRUPTED_AFTER}:
        print(json.dumps([batch_indices(8, 2, 5, i) for i in range(8)]), flush=True)
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
    assert json.loads(order) == [batch_indices(8, 2, 5, i) for i in range(8)], "differs between processes"


# Checkpoint files


def test_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run" / "checkpoint.pt"
    assert load_checkpoint(path, "a") is None
    save_checkpoint(path, {"identity": "a", "iteration": 1})

    def half(state, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises((OSError, BenchError)):
        save_checkpoint(path, {"identity": "a", "iteration": 2})
    assert load_checkpoint(path, "a")["iteration"] == 1


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
    save_checkpoint(folder / "checkpoint.pt", {"identity": identity, "iteration": 3, "model": torch.zeros(500)})
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
        self.classes = nn.Parameter(torch.zeros(8, len(scenes.CLASSES) + 1))
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
    with pytest.raises(BenchError) as error:
        run(dataset, tmp_path, model=model)
    message, ids = str(error.value), [dataset.images[i]["id"] for i in batch_indices(8, 2, 0, 2)]
    assert "\n" not in message and message.endswith(f"the same command comes to the same end: {OTHER_SEED}")
    assert "at iteration 2 (" in message and f"images {ids[0]}, {ids[1]};" in message
    assert f"{tmp_path / 'checkpoint.pt'} has the state of iteration 2" in message
    assert load_checkpoint(tmp_path / "checkpoint.pt", IDENTITY)["iteration"] == 2
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# Data order and seeds


@pytest.mark.parametrize(("length", "batch_size"), [(7, 3), (8, 2), (3, 8)])
def test_every_epoch_shows_every_image_once(length, batch_size):
    steps = [batch_indices(length, batch_size, 1, i) for i in range(4 * length)]
    assert {len(step) for step in steps} == {batch_size}
    positions = sum(steps, [])
    epochs = [positions[i : i + length] for i in range(0, len(positions), length)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1, "the epochs are not shuffled anew"


def test_data_order_depends_on_seed_and_iteration_alone():
    orders = []
    for state in (0, 1):
        torch.manual_seed(state)
        orders.append([batch_indices(100, 8, 2, i) for i in (5, 0, 40)])
    assert orders[0] == orders[1]
    assert batch_indices(100, 8, 2, 0) != batch_indices(100, 8, 3, 0)


def test_batches_depend_on_seed_and_iteration_alone(dataset):
    def batch(seed, iteration):
        torch.rand(1)
        made = make_batch(dataset, RECIPE, seed, iteration)
        assert made.images.shape == (2, 3, 64, 64)
        pairs = zip(made.labels, made.masks, strict=True)
        assert all(masks.shape == (len(labels), 64, 64) for labels, masks in pairs)
        return made.images

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


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if m.predicts == "masks"])
def test_every_method_fits_one_batch(dataset, tmp_path, monkeypatch, method):
    recipe = replace(RECIPE, iterations=40, learning_rate=1e-3, step_fractions=(0.9,), warmup_iterations=5)
    batch = make_batch(dataset, recipe, 0, 0)
    monkeypatch.setattr("bench.training.batches.make_batch", lambda *args: batch)
    _, losses, result = run(dataset, tmp_path, model=tiny_model(method), recipe=recipe)
    assert len(losses) == 40 and result.final_loss == losses[-1]
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]


# Execution


def frozen_model():
    """A model whose images do not see each other: no batch statistics, no dropout."""
    torch.manual_seed(0)
    backbone = ResNet((1,) * 4, 16, FrozenBatchNorm2d, stem_pool=False)
    sizes = {"channels": 64, "heads": 4, "hidden": 64, "embedding_channels": 32}
    return hcformer(len(scenes.CLASSES), backbone, 3, 1, 8, **sizes)


@pytest.mark.parametrize(("images", "together"), [(1, None), (3, None), (4, None), (1, 2), (3, 2), (4, 1)])
def test_gradient_accumulation_changes_nothing(dataset, tmp_path, images, together):
    """Nor where a pass cuts images apart whose class losses are normalised together, and with empty targets."""
    recipe = replace(RECIPE, batch_size=4, iterations=4, class_loss_images=together, keep_emptied=together is not None)
    states, losses, _ = run(dataset, tmp_path / "whole", model=frozen_model(), recipe=recipe)
    execution = Execution(micro_batch=images)
    other, summed, _ = run(dataset, tmp_path / "parts", model=frozen_model(), recipe=recipe, execution=execution)
    assert summed == pytest.approx(losses, rel=1e-5)
    for name, value in states.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)
    assert [len(part) for part in execution.passes(recipe)] == {1: [1] * 4, 3: [3, 1], 4: [4]}[images]


@pytest.mark.parametrize(
    ("model", "remedy"), [(frozen_model, "--micro-batch N"), (tiny_model, "whole batch of 2: share it among 2 GPUs")]
)
def test_out_of_memory_names_what_helps(dataset, tmp_path, monkeypatch, model, remedy):
    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.Updater, "step", step)
    with pytest.raises(BenchError, match=f"out of memory with 2 image.*: .*{remedy}"):
        run(dataset, tmp_path, model=model(), recipe=replace(RECIPE, batch_size=2))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_continues_to_the_bit(dataset, tmp_path, every_step, precision):
    recipe, execution = replace(RECIPE, iterations=4), Execution(precision=precision)
    _, full, _ = run(dataset, tmp_path / "float32", recipe=recipe)
    states, losses, _ = run(dataset, tmp_path / "straight", recipe=recipe, execution=execution)
    compared = 4 if precision == "bf16" else 1  # fp16 leaves out updates until its scale fits
    assert losses != full and losses[:compared] == pytest.approx(full[:compared], rel=0.02)
    assert {value.dtype for value in states.values() if value.is_floating_point()} == {torch.float32}
    with pytest.raises(Stop):
        run(dataset, tmp_path, recipe=recipe, execution=execution, progress=stop_after(2))
    resumed, tail, _ = run(dataset, tmp_path, recipe=recipe, execution=execution)
    assert tail == losses[2:]
    assert_same(resumed, states)


def test_precision_of_the_recipe(dataset, tmp_path):
    recipe = replace(RECIPE, iterations=1)
    given = run(dataset, tmp_path / "given", recipe=recipe, execution=Execution(precision="bf16"))[1]
    assert run(dataset, tmp_path / "recipe", recipe=replace(recipe, precision="bf16"))[1] == given


class Scaled(Breaking):
    """The mask loss's gradient overflows in fp16 at first: a hundred times the scale that the scaler starts with."""

    def forward(self, images):
        prediction = super().forward(images)
        return replace(prediction, scales=prediction.scales * self.value)


def test_fp16_leaves_out_updates_that_overflow(dataset, tmp_path):
    """The scaler halves its scale (2^16 at first) until the gradient, 1e35 times it, fits into float32."""
    model, norms = Scaled("scales", 1e35), []
    model.classes.data[0, 0] = 1e-33
    before, recipe = model.classes.detach().clone(), replace(RECIPE, iterations=2, weight_decay=0.0)
    run(dataset, tmp_path, model=model, recipe=recipe, execution=Execution(precision="fp16"),
        progress=lambda report: norms.append(report.gradient_norm))  # fmt: skip
    assert norms == [float("inf")] * 2 and torch.equal(model.classes, before)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["gradient_norm"] for line in lines] == [None, None] and [line["skipped"] for line in lines] == [1, 2]


class BadGradient(nn.Module):
    """A finite loss whose gradient is not finite in the steps `bad`, as when bf16 overflows going backward."""

    def __init__(self, bad, calls=0):
        super().__init__()
        self.model, self.bad, self.calls = tiny_model(), bad, calls

    def forward(self, images):
        prediction = self.model(images)
        if self.calls in self.bad:
            prediction.mask_logits.register_hook(lambda gradient: gradient * float("inf"))
        self.calls += 1
        return prediction


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradient_that_is_not_finite_is_left_out(dataset, tmp_path, precision, monkeypatch):
    """Nothing of the step remains: neither in the parameters nor in AdamW's means and counts; the schedule goes on."""
    model, seen, reports, step = BadGradient({2}), [], [], Updater._update

    def all_of(optimiser):
        states = optimiser.state_dict()["state"].values()
        return [p.detach().clone() for p in model.parameters()] + [v.clone() for s in states for v in s.values()]

    def watched(self, iteration):
        before = all_of(self.optimiser)
        norm = step(self, iteration)
        after, group = all_of(self.optimiser), self.optimiser.param_groups[-1]
        kept = len(before) == len(after) and all(map(torch.equal, before, after))
        seen.append((kept, group["lr"] / group["initial_lr"]))
        return norm

    monkeypatch.setattr(Updater, "_update", watched)
    scaler = partial(torch.amp.GradScaler, init_scale=1.0)  # so that nothing but the third step overflows
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    result = run(dataset, tmp_path, model=model, execution=Execution(precision=precision), progress=reports.append)[2]
    assert [kept for kept, _ in seen] == [False, False, True, False, False, False]
    assert [rate for _, rate in seen] == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01])
    assert result.skipped == 1 and [report.skipped for report in reports] == [0, 0, 1, 1, 1, 1]
    assert str(reports[1]).endswith(" GiB") and str(reports[2]).endswith(", 1 update(s) skipped")
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1, 1] and lines[2]["gradient_norm"] is None


@pytest.mark.parametrize("bad", [(1, 2, 3), (1, 2, 4, 5)])
def test_skipped_in_a_row_is_counted_over_a_resume(dataset, tmp_path, every_step, monkeypatch, bad):
    """Three in a row are too many here: two before the run is stopped, and the third after it, or not."""
    monkeypatch.setattr("bench.training.update.MAX_SKIPPED", 3)
    bf16 = Execution(precision="bf16")
    with pytest.raises(Stop):
        run(dataset, tmp_path, model=BadGradient(bad[:2]), execution=bf16, progress=stop_after(3))
    assert load_checkpoint(tmp_path / "checkpoint.pt", IDENTITY)["skipped_in_a_row"] == 2
    if 3 not in bad:
        assert run(dataset, tmp_path, model=BadGradient(bad, 3), execution=bf16)[2].skipped == 4
        return
    with pytest.raises(BenchError) as error:
        run(dataset, tmp_path, model=BadGradient(bad, 3), execution=bf16)
    message = str(error.value)
    assert message.startswith("the gradient is nan at iteration 3 and at the 2 before it, images "), message
    assert message.endswith(f"{OTHER_SEED}; or delete checkpoint.pt, and give that command --precision float32")


def test_gradient_that_is_not_finite_in_float32_stops(dataset, tmp_path):
    with pytest.raises(BenchError, match=rf"^the gradient is nan at iteration 1, .*: {OTHER_SEED}$"):
        run(dataset, tmp_path, model=BadGradient({1}))


def test_stop_saves_the_last_step(dataset, tmp_path, uninterrupted):
    """As on SIGTERM; the periodic checkpoint would be 15 s away."""
    asked = []
    execution = Execution(stop=lambda: asked.append(1) or len(asked) == 3)
    with pytest.raises(Stopped):
        run(dataset, tmp_path, execution=execution)
    assert load_checkpoint(tmp_path / "checkpoint.pt", IDENTITY)["iteration"] == 3
    states, losses, result = run(dataset, tmp_path)
    assert losses == uninterrupted[1][3:] and result.resumed == 1
    assert_same(states, uninterrupted[0])


def test_sigterm_while_a_checkpoint_is_written(dataset, tmp_path, monkeypatch, every_step, uninterrupted):
    """That one is written to its end, and one of the next step follows."""
    request, save = _StopRequest(), torch.save
    monkeypatch.setattr(torch, "save", lambda *given: (os.kill(os.getpid(), signal.SIGTERM), save(*given)))
    before = signal.signal(signal.SIGTERM, request.note)
    try:
        with pytest.raises(Stopped):
            run(dataset, tmp_path, execution=Execution(stop=request))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert load_checkpoint(tmp_path / "checkpoint.pt", IDENTITY)["iteration"] == 2
    monkeypatch.undo()
    states, losses, _ = run(dataset, tmp_path)
    assert losses == uninterrupted[1][2:] and sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, LOG]
    assert_same(states, uninterrupted[0])


def test_paper_scale_has_a_checkpoint_every_ten_minutes(dataset, tmp_path, monkeypatch):
    """Steps of 100 s, and writing one takes no time, or 40 s: 5 % of 800 s."""
    for written, expected in ((0.0, [6, 12, 16]), (40.0, [6, 14, 16])):
        now, saved = [0.0], []
        monkeypatch.setattr(engine.time, "monotonic", lambda now=now: now[0])

        def save(path, state, now=now, saved=saved, written=written):
            saved.append(state["iteration"])
            now[0] += written

        monkeypatch.setattr(engine, "save_checkpoint", save)
        run(dataset, tmp_path, model=Breaking("scales", 0.0), recipe=replace(RECIPE, iterations=16),
            progress=lambda report, now=now: now.__setitem__(0, now[0] + 100.0),
            execution=Execution(paper_scale=True))  # fmt: skip
        assert saved == expected


def test_stop_in_the_last_step_ends_the_training(dataset, tmp_path):
    assert (
        len(run(dataset, tmp_path, recipe=replace(RECIPE, iterations=1), execution=Execution(stop=lambda: True))[1])
        == 1
    )


def test_checkpoints_that_take_long_are_rarer(dataset, tmp_path, monkeypatch):
    """Writing takes 2 s, a step 10 s: the second checkpoint comes 40 s after the first and not 15 s."""
    now, saved = [0.0], []
    monkeypatch.setattr(engine.time, "monotonic", lambda: now[0])

    def save(path, state):
        saved.append(state["iteration"])
        now[0] += 2.0

    monkeypatch.setattr(engine, "save_checkpoint", save)
    run(dataset, tmp_path, model=Breaking("scales", 0.0), recipe=replace(RECIPE, iterations=12),
        progress=lambda report: now.__setitem__(0, now[0] + 10.0))  # fmt: skip
    assert saved == [2, 6, 10, 12]


# Logs


def test_log_has_a_line_a_step_and_survives_a_kill(dataset, tmp_path, monkeypatch, uninterrupted):
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", 1e9)
    execution = Execution(stop=lambda: (tmp_path / LOG).read_text().count("\n") == 1)
    with pytest.raises(Stopped):  # checkpoint after two steps
        run(dataset, tmp_path, execution=execution)
    with pytest.raises(Stop):  # killed in the fifth
        run(dataset, tmp_path, progress=stop_after(4))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"iteration": 6, "lo')
    run(dataset, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [(line["iteration"], line["loss"]) for line in lines] == list(enumerate(uninterrupted[1], start=1))
    assert [line["learning_rate"] for line in lines] == pytest.approx([5e-4, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5])
    assert all(line["gradient_norm"] > 0 and line["images_per_second"] > 0 for line in lines)
    assert all(0 <= line["data_share"] <= 1 and line["memory"] > 2**20 for line in lines)


def test_tensorboard(dataset, tmp_path, uninterrupted):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(dataset, tmp_path, execution=Execution(tensorboard=True))
    read = events.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    scalars = read.Scalars("loss")
    assert [scalar.step for scalar in scalars] == [1, 2, 3, 4, 5, 6]
    assert [scalar.value for scalar in scalars] == pytest.approx(uninterrupted[1])


def test_tensorboard_that_is_not_installed(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BenchError, match=r"^--tensorboard needs .*pip install tensorboard$"):
        run(dataset, tmp_path, execution=Execution(tensorboard=True))


def test_long_trainings_log_every_so_many_steps(tmp_path):
    with TrainingLog(tmp_path, 0, False) as log:
        for iteration in (1, 73, 74, 148, 368_749, 368_750):
            log.write(StepReport(iteration, 368_750, 1.0, 1e-4, 1.0, 1.0, 0.0, 1))
    lines = [json.loads(line)["iteration"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert lines == [74, 148, 368_750]


def test_meter_measures_the_last_steps(monkeypatch):
    """16 images in 2 s, half a second of which went to waiting; then 50 steps of 1 s without."""
    now = [100.0]
    monkeypatch.setattr("bench.training.progress.time.monotonic", lambda: now[0])
    meter, results = Meter(16), []
    for seconds, waited in [(2.0, 0.5), *[(1.0, 0.0)] * 50]:
        now[0] += seconds
        results.append(meter.step(waited))
    assert results[0] == (8.0, 0.25)
    assert results[1] == pytest.approx((32 / 3, 0.5 / 3))
    assert results[-1] == (16.0, 0.0)


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if m.predicts == "pixels" and m.trained])
def test_crops_of_per_pixel_methods_are_not_padded(dataset, method):
    """An odd crop reaches the network as it is, so that its batch norms see nothing else; all of them can take it."""
    recipe, seen = replace(RECIPE, crop_size=(97, 65)), []
    model = build_model(experiment(method, "small", "synthetic_semantic", "small"), 0, auxiliary=True).train()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    world, criterion = World(device=torch.device("cpu")), PixelCriterion()
    updater = Updater(model, recipe, 0, 10, world, [range(2)], "float32", criterion)
    loss, norm, _ = updater.step(0, make_batch(dataset, recipe, 0, 0))
    assert seen == [(2, 3, 97, 65)] and loss > 0 and norm > 0
