"""`bench compare` as a user types it, over stores whose evaluations were real, of models that know the truth but not
exactly."""

import json
import re
import shutil
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.data.registry import open_split
from bench.evaluation.evaluate import evaluate_shared, make_evaluator
from bench.experiments import experiment
from bench.measure.accuracy import percentages
from bench.records import Store
from bench.training.distributed import World
from tests.conftest import few_scenes, mistake
from tests.evaluation.noisy import results_from
from tests.report import fakes

GOOD = experiment("hcformer", "small", "synthetic_panoptic", "small")
BAD = experiment("maskformer", "small", "synthetic_panoptic", "small")
IMAGES = 6
DETAILS = {"val_fingerprint": "ab" * 32, "val_split": "val", "val_images": IMAGES}
ALONE = World(device=torch.device("cpu"))
METRICS = ["PQ", "PQ_th", "PQ_st", "AP_pan_th", "mIoU_pan"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_split("synthetic_panoptic", "val", few_scenes(tmp_path_factory, train=1, val=IMAGES))


def predictor(dataset, seed: int, wrong: float):
    def predict(index):
        sample, generator = dataset[index], torch.Generator().manual_seed(100 * seed + index)
        masks = 8 * sample.masks.float() - 4 + 1.5 * torch.randn(sample.masks.shape, generator=generator)
        found = torch.rand(len(sample.labels), generator=generator) >= wrong
        classes = torch.zeros(len(sample.labels), len(dataset.categories) + 1)
        classes[torch.arange(len(classes)), sample.labels] = 6 * found + torch.rand(len(classes), generator=generator)
        return results_from(dataset, sample.image_id, classes, masks)

    return predict


@pytest.fixture(scope="module")
def measured(dataset, tmp_path_factory):
    """A store: three seeds of a good and of a bad model, evaluated; do not change it."""
    store = Store(tmp_path_factory.mktemp("measured"))
    for what, wrong, first in ((GOOD, 0.05, 0), (BAD, 0.7, 10)):
        for seed in range(3):
            work = store.scratch_dir(what, "accuracy", seed)
            found = evaluate_shared(predictor(dataset, first + seed, wrong), dataset, work, {}, ALONE)
            record = replace(fakes.accuracy(what, seed), metrics=percentages(found, IMAGES), details=DETAILS)
            store.write(record)
    return store


@pytest.fixture
def store(measured, tmp_path):
    shutil.copytree(measured.path, tmp_path / "store")
    return Store(tmp_path / "store")


def folder(store, what):
    return store.record_path(what, "accuracy", 0).parent


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def rows(out: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in out.splitlines() if re.match(r"\| \w", line)]
    return {name.strip(): [text.strip() for text in texts] for name, *texts in lines[1:]}


def test_three_seeds_of_two_models(bench, store):
    code, out, _ = bench("compare", folder(store, GOOD), folder(store, BAD))
    assert code == 0
    answer = out.splitlines()[0]
    assert answer.startswith("A is better in PQ by ") and f"over the same {IMAGES} images (median of 3 seeds;" in answer
    values = [[store.get(what, "accuracy", seed).metrics["PQ"]["value"] for seed in range(3)] for what in (GOOD, BAD)]
    spreads = [bound for seeds in values for bound in (min(seeds), max(seeds))]
    difference = np.median(values[0]) - np.median(values[1])
    amount, low, high, *found = numbers(answer)
    assert amount == pytest.approx(difference, abs=0.006) and 0 < low < amount < high
    assert found == pytest.approx(spreads, abs=0.006)
    table = rows(out)
    assert list(table) == METRICS
    assert numbers(table["PQ"][2]) == [amount, low, high]
    assert f"A: {folder(store, GOOD)}, seeds 0, 1, 2" in out
    _, turned, _ = bench("compare", folder(store, BAD), folder(store, GOOD))
    assert turned.startswith("B is better in PQ by ") and numbers(turned.splitlines()[0])[:3] == [amount, low, high]
    assert numbers(rows(turned)["PQ"][2]) == [-amount, -high, -low]


def test_interval_is_that_of_a_plain_resampling_of_pairs(bench, store, dataset):
    """Both models' images drawn together, PQ of each draw by the ordinary evaluator, the median over seeds."""
    evaluators = []
    for what in (GOOD, BAD):
        for seed in range(3):
            lines = (store.work_path(what, "accuracy", seed) / "images-0.jsonl").read_text().splitlines()[1:]
            evaluators.append([json.loads(line) for line in lines])
    ids = sorted(image["id"] for image in dataset.images)
    rng, differences = np.random.default_rng(0), []
    for _ in range(1000):
        drawn, values = rng.integers(IMAGES, size=IMAGES), []
        for entries in evaluators:
            by_id, quality = {entry["image"]["id"]: entry for entry in entries}, make_evaluator(dataset)._quality
            for number, position in enumerate(drawn):
                quality.take(number, by_id[ids[position]]["quality"])
            values.append(quality.compute()["PQ"])
        differences.append(np.median(values[:3]) - np.median(values[3:]))
    expected = np.percentile(differences, [2.5, 97.5])
    _, out, _ = bench("compare", folder(store, GOOD), folder(store, BAD))
    assert numbers(rows(out)["PQ"][2])[1:] == pytest.approx(expected, abs=0.006)


def test_records_alone_and_stores(bench, store, tmp_path):
    one = store.record_path(GOOD, "accuracy", 0)
    code, out, _ = bench("compare", one, one)
    assert code == 0 and out.startswith(
        "no clear difference in PQ: A - B is +0.00 [0.00, 0.00] over the same 6 images\n"
    )
    assert "seeds" not in out and "seed 0" in out
    code, out, _ = bench("compare", store.path, store.path)
    assert code == 0 and out.count("no clear difference in PQ") == 2
    shutil.rmtree(folder(store, BAD))
    code, out, _ = bench("compare", store.path, one)
    assert code == 0 and "median of 3 and 1 seeds" in out
    code, out, _ = bench("compare", store.path, tmp_path / "store")
    assert code == 0 and out.count("no clear difference") == 1


def test_store_without_its_work_is_compared_unpaired(bench, store):
    """As a committed store, or one that was sent."""
    shutil.rmtree(store.path / "work")
    code, out, _ = bench("compare", folder(store, GOOD), folder(store, BAD))
    assert code == 0
    assert re.match(r"A - B is \+\d+\.\d\d in PQ, unpaired \(median of 3 seeds;", out)
    assert "how sure a difference is cannot be said: no " in out and "image_counts.safetensors, which an evalu" in out
    table = rows(out)
    assert [len(numbers(text)) for text in table["PQ"][:3]] == [3, 3, 1]
    middle = sorted(store.get(GOOD, "accuracy", seed).metrics["PQ"]["value"] for seed in range(3))[1]
    (interval,) = (
        m["interval"] for m in (store.get(GOOD, "accuracy", s).metrics["PQ"] for s in range(3)) if m["value"] == middle
    )
    assert numbers(table["PQ"][0]) == pytest.approx([middle, *interval], abs=0.006)


def test_records_of_before_there_were_intervals(bench, tmp_path):
    old, new = Store(tmp_path / "old"), Store(tmp_path / "new")
    for store, value in ((old, 30.0), (new, 32.5)):
        for seed in range(2):
            store.write(fakes.accuracy(GOOD, seed, value + seed))
    code, out, _ = bench("compare", old.path, new.path)
    answer = "A - B is -2.50 in PQ, unpaired (median of 2 seeds; seeds' spread A 30.00..31.00, B 32.50..33.50)"
    assert code == 0 and out.splitlines()[0] == answer and "In brackets" not in out
    assert rows(out)["PQ"] == ["30.50", "33.00", "-2.50", "30.00..31.00", "32.50..33.50"]


def test_mistakes(bench, store, tmp_path):
    good, bad = (store.record_path(what, "accuracy", 0) for what in (GOOD, BAD))
    mistake(bench("compare", good, tmp_path / "none"), "none", "No such file")
    (tmp_path / "empty").mkdir()
    mistake(bench("compare", good, tmp_path / "empty"), "empty holds no accuracy", "give a store")
    (tmp_path / "broken.json").write_text("[" * 100_000)
    mistake(bench("compare", good, tmp_path / "broken.json"), "broken.json is damaged or foreign")

    def changed(what, **details):
        other = Store(tmp_path / f"other{len(list(tmp_path.iterdir()))}")
        other.write(replace(store.get(what, "accuracy", 0), details=DETAILS | details))
        return other.path

    mistake(bench("compare", good, changed(BAD, val_fingerprint="cd" * 32)), "different data", "abababababab")
    mistake(bench("compare", good, changed(BAD, val_split="train")), "different split, val and train")
    mistake(bench("compare", good, changed(BAD, val_images=4)), "different numbers of images")
    nuclei = experiment("hcformer", "small", "nuclei", "small")
    (other := Store(tmp_path / "nuclei")).write(fakes.accuracy(nuclei))
    mistake(bench("compare", good, other.path), "one side is of synthetic_panoptic, the other of nuclei")
    other.write(fakes.accuracy(replace(nuclei, num_queries=30)))
    mistake(bench("compare", store.path, other.path), "none is on both sides", "records/")
    alone = replace(store.get(BAD, "accuracy", 0), metrics={"AP": {"value": 1.0, "unit": "%", "n": IMAGES}})
    (other := Store(tmp_path / "alone")).write(alone)
    mistake(bench("compare", good, other.path), "no metric in common")

    counts = store.work_path(BAD, "accuracy", 0) / "image_counts.safetensors"
    shutil.copy(store.work_path(GOOD, "accuracy", 0) / "image_counts.safetensors", counts)
    mistake(bench("compare", good, bad), "is of another evaluation than", "PQ")
    counts.write_bytes(counts.read_bytes()[:-9])
    mistake(bench("compare", good, bad), "no readable file of image counts")


def test_other_images_are_refused(bench, store, dataset, tmp_path):
    """Of a data set whose fingerprint nobody wrote down."""
    few = copy(dataset)
    few.images = dataset.images[:-1]
    other = Store(tmp_path / "few")
    found = evaluate_shared(predictor(few, 1, 0.1), few, other.scratch_dir(BAD, "accuracy", 0), {}, ALONE)
    other.write(replace(fakes.accuracy(BAD), metrics=percentages(found, IMAGES - 1)))
    known = store.get(GOOD, "accuracy", 0)
    store.write(replace(known, details={}))
    mistake(bench("compare", store.record_path(GOOD, "accuracy", 0), other.path), "evaluated on different images")
