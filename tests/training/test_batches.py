"""Batches as functions of (seed, iteration): shared between processes, loaded ahead, and samples that fail."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.data.coco import Sample
from bench.data.transforms import IMAGENET, augment
from bench.errors import BenchError
from bench.experiments import RECIPES
from bench.training.batches import (
    DRAWS,
    JITTER_DRAWS,
    batch_indices,
    derived_seed,
    load_batches,
    loading_processes,
    make_batch,
)
from bench.training.distributed import World

ROOT = Path(__file__).resolve().parents[2]
RECIPE = replace(RECIPES["synthetic_panoptic", "small"], iterations=5, batch_size=4, crop_size=(24, 32))


class Images:
    """Images of various sizes with up to three segments; opening one of `broken` fails as told."""

    def __init__(self, length=9, broken=()):
        self.length, self.broken = length, broken

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.broken:
            raise BenchError(f"image {index} is broken: get it again")
        generator = torch.Generator().manual_seed(index)
        height, width = 20 + 3 * index, 50 - 2 * index
        ids = torch.randint(3, (height, width), generator=generator)
        masks = torch.stack([ids == i for i in range(index % 4)]) if index % 4 else torch.zeros(0, height, width).bool()
        image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
        return Sample(index, image, torch.arange(index % 4), masks)


def assert_same(batch, other):
    assert torch.equal(batch.images, other.images)
    for name in ("labels", "masks"):
        pairs = zip(getattr(batch, name), getattr(other, name), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("mode", ["scale", "shorter_side"])
def test_augmentation_draws_as_many_numbers_as_are_skipped(jitter, mode):
    recipe = replace(RECIPE, colour_jitter=jitter, resize_mode=mode, scale_range=(0.5, 2.0))
    for index in range(9):
        drawn, skipped = (torch.Generator().manual_seed(3) for _ in range(2))
        augment(Images()[index], drawn, recipe)
        torch.rand(DRAWS + JITTER_DRAWS * jitter, generator=skipped)
        assert torch.equal(drawn.get_state(), skipped.get_state())


@pytest.mark.parametrize("jitter", [False, True])
def test_samples_of_a_batch_draw_from_one_sequence(jitter):
    """One generator for the batch, as the measured runs had it: shares of several processes cannot differ from it."""
    recipe = replace(RECIPE, colour_jitter=jitter, scale_range=(0.5, 2.0))
    batch = make_batch(Images(), recipe, 7, 2)
    generator = torch.Generator().manual_seed(derived_seed("augmentation", 7, 2))
    samples = [augment(Images()[i], generator, recipe) for i in batch_indices(9, 4, 7, 2)]
    assert torch.equal(batch.images, torch.stack([sample.image for sample in samples]))
    assert [labels.tolist() for labels in batch.labels] == [sample.labels.tolist() for sample in samples]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_shares_make_up_the_batch(size):
    whole = make_batch(Images(), RECIPE, 0, 3)
    shares = [make_batch(Images(), RECIPE, 0, 3, World(rank, size).share(4)) for rank in range(size)]
    assert torch.equal(whole.images, torch.cat([share.images for share in shares]))
    assert [x.tolist() for x in whole.labels] == [x.tolist() for share in shares for x in share.labels]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_loaded_ahead_are_the_same(workers):
    loaded = list(load_batches(Images(), RECIPE, 1, 2, range(1, 3), workers, pin=False, fill=IMAGENET.mean))
    assert len(loaded) == 3
    for iteration, batch in enumerate(loaded, start=2):
        assert_same(batch, make_batch(Images(), RECIPE, 1, iteration, range(1, 3)))


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_sample_is_one_line(workers):
    images = Images(broken=(batch_indices(9, 4, 0, 1)[2],))
    batches = load_batches(images, RECIPE, 0, 0, range(4), workers, pin=False, fill=IMAGENET.mean)
    if images.broken[0] not in batch_indices(9, 4, 0, 0):
        next(batches)
    with pytest.raises(BenchError, match=r"^image \d is broken: get it again$"):
        next(batches)


class Killed(Images):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_loading_process_is_one_line():
    with pytest.raises(BenchError, match=r"^(?!.*\n)a process that loads images was killed"):
        next(load_batches(Killed(), RECIPE, 0, 0, range(4), 1, pin=False, fill=IMAGENET.mean))


def test_loading_process_leaves_signals_to_the_training():
    class Signalled(Images):
        def __getitem__(self, index):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    assert len(list(load_batches(Signalled(), RECIPE, 0, 3, range(4), 1, pin=False, fill=IMAGENET.mean))) == 2


@pytest.mark.parametrize(
    ("device", "cores", "local", "expected"),
    [("cpu", 64, 1, 1), ("cuda", 64, 8, 7), ("cuda", 64, 4, 8), ("cuda", 8, 8, 1), ("cuda", 16, 1, 8)],
)
def test_loading_processes(monkeypatch, device, cores, local, expected):
    monkeypatch.setattr("bench.training.batches.available_cores", lambda: cores)
    assert loading_processes(World(0, local, local, torch.device(device))) == expected


def test_batch_that_processes_cannot_share():
    with pytest.raises(BenchError, match=r"^3 processes cannot share a batch of 16 evenly: start 1, 2, 4, 8, 16 of"):
        World(0, 3).share(16)


@pytest.mark.parametrize(("size", "filled"), [("1m", 0), ("4k", 4096)])
def test_small_shared_memory_is_one_line(size, filled):
    """A real /dev/shm of that size; torch's own loader would wait for ever. One that is full has no semaphores."""
    code = (
        "from bench.errors import BenchError\n"
        "from tests.training.test_batches import IMAGENET, RECIPE, Images, load_batches\n"
        "from dataclasses import replace\n"
        "recipe = replace(RECIPE, crop_size=(512, 512))\n"
        "try:\n"
        "    list(load_batches(Images(), recipe, 0, 0, range(4), 1, pin=False, fill=IMAGENET.mean))\n"
        "except BenchError as error:\n"
        "    print(error)\n"
    )
    small = f'mount -t tmpfs -o size={size} none /dev/shm && head -c {filled} /dev/zero > /dev/shm/x && exec "$@"'
    command = ["unshare", "-Urm", "sh", "-c", small, "sh", sys.executable, "-c", code]
    if subprocess.run(["unshare", "-Urm", "sh", "-c", "mount -t tmpfs none /dev/shm"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a /dev/shm of their own")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.stdout.startswith("the processes that read images find no shared memory"), done.stderr
    assert done.stdout.count("\n") == 1 and "--shm-size" in done.stdout and "--workers 0" in done.stdout
