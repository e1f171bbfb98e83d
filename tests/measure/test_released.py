"""A released checkpoint: which file a record is of, and an evaluation that is killed and goes on where it stopped."""

import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.data.registry import open_split, split_fingerprint
from bench.data.synthesis import synthetic
from bench.data.synthesis.layouts import synthesize
from bench.errors import BenchError
from bench.evaluation.evaluate import make_evaluator
from bench.evaluation.image_log import ImageLog
from bench.evaluation.saved_predictions import SavedPredictions
from bench.evaluation.uncertainty.file import IMAGE_COUNTS, read_counts
from bench.experiments import experiment
from bench.experiments.datasets import get_dataset
from bench.experiments.inference_rules import InferenceRules, post_processing
from bench.experiments.table import Measurement
from bench.measure import released
from bench.measure.released import LOG, is_done
from bench.records import Store
from bench.run import jobs
from bench.run.jobs import Job, Reporter
from bench.run.plan import evaluate_released
from bench.run.set_aside import set_aside
from bench.weights.load import pack
from bench.zoo import build_model
from tests.measure.evaluation_alone import AS_IT_IS, evaluate
from tests.report import fakes

ROOT = Path(__file__).resolve().parents[2]
WHAT = experiment("hcformer", "small", "synthetic_panoptic", "small", decoder_layers=1, num_queries=8)
IMAGES, STOPPED_AFTER = 5, 3
METRICS = ("PQ", "PQ_th", "PQ_st", "AP_pan_th", "mIoU_pan")

# In both processes: five images, and a model that knows them and is partly wrong, so that every metric has its share.
# It comes from no file, but the record is of the file all the same.
STUB = f"""
import sys
import torch
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from torch.nn.functional import interpolate, one_hot
from bench.measure import released
from bench.data.synthesis import synthetic
from bench.data.registry import open_split
from bench.data.transforms import preprocess
from bench.experiments import experiment
from models.outputs import MaskPrediction
synthetic.SPLITS = {{"train": 1, "val": {IMAGES}}}
class Knowing(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        dataset = open_split("synthetic_panoptic", "val")
        self.classes = len(dataset.categories)
        self.samples = {{preprocess([sample.image]).sum().item(): sample for sample in dataset}}
    def forward(self, images):
        sample = self.samples[images.contiguous().sum().item()]
        wrong = torch.arange(len(sample.labels)) % 3 == 2
        labels = (sample.labels + wrong) % self.classes
        logits = 6.0 * one_hot(labels, self.classes + 1) + 0.1 * torch.arange(len(labels))[:, None]
        masks = 20.0 * sample.masks.roll(2, -1) - 10.0
        return MaskPrediction(logits[None], interpolate(masks[None], scale_factor=0.25))
def open_stub(path, **factors):
    facts = {{"file": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}}
    facts |= {{"source": "hub.bin", "source_sha256": None, "format": "hub"}}
    return SimpleNamespace(experiment=experiment(**factors), build=lambda: Knowing().eval(), facts=facts)
released.open_weights = open_stub
"""
EVALUATE = STUB + f"""
import os, time
from bench.evaluation.image_log import ImageLog
from bench.run import jobs
append = ImageLog.append
def stopping(log, measured):
    append(log, measured)
    if log.path.read_bytes().count(b"\\n") == 1 + {STOPPED_AFTER}:
        print("stopped", flush=True)
        time.sleep(600)
ImageLog.append = stopping
jobs.main()
"""  # fmt: skip


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache of its own for a small data set, and one thread in subprocesses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 1, "val": 4})


@pytest.fixture
def stubbed(monkeypatch, cache):
    """STUB in this process, one thread."""
    monkeypatch.setattr(released, "open_weights", released.open_weights)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    exec(STUB, {})
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "some weights.safetensors"
    path.write_bytes(b"weights")
    return path


def job_of(store: Store, weights: Path, **changes) -> Job:
    return Job("released", (WHAT,), str(store.path), weights=str(weights), **changes)


def measured_of(record) -> tuple[dict, dict]:
    """What must not depend on how often the evaluation was stopped."""
    metrics = {name: metric for name, metric in record.metrics.items() if name != "evaluation_seconds"}
    return metrics, {name: value for name, value in record.details.items() if name != "resumed_after_images"}


def test_killed_evaluation_goes_on_and_ends_in_the_same_record(tmp_path, stubbed, weights):
    straight, killed = Store(tmp_path / "straight"), Store(tmp_path / "killed")
    jobs.run_job(job_of(straight, weights), Reporter())
    command = [sys.executable, "-c", EVALUATE, job_of(killed, weights).to_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert any(line == "stopped\n" for line in process.stdout)
        process.kill()
    assert killed.state(WHAT, "released") == "missing"
    log = killed.scratch_dir(WHAT, "released") / LOG
    with log.open("ab") as file:
        file.write(log.read_bytes().splitlines()[-1][:-10])  # as killed while writing
    seen = []
    jobs.run_job(job_of(killed, weights), lambda *report: seen.append(report[:2]))
    assert seen == [(done, IMAGES) for done in range(STOPPED_AFTER, IMAGES + 1)] and not log.exists()

    expected, record = straight.get(WHAT, "released"), killed.get(WHAT, "released")
    assert (expected.details["resumed_after_images"], record.details["resumed_after_images"]) == (0, STOPPED_AFTER)
    assert measured_of(record) == measured_of(expected)
    assert all(0 < record.metrics[name]["value"] < 100 for name in METRICS), "nothing to compare"
    assert record.metrics["PQ"]["n"] == record.details["val_images"] == IMAGES
    assert record.details["weights"]["sha256"] == sha256(b"weights").hexdigest()
    assert record.details["weights"]["file"] == "some weights.safetensors"
    assert (record.details["test_shorter_side"], record.details["test_longer_side"]) == (None, None)
    assert len(record.details["val_fingerprint"]) == 64 and record.details["device"]
    assert record.provenance["duration_s"] == record.metrics["evaluation_seconds"]["value"] > 0
    assert killed.state(WHAT, "released") == "done"


def test_images_of_another_file_are_not_counted(tmp_path, stubbed, weights):
    """Nor those of other data or another post-processing: all of it is in the first line."""
    store = Store(tmp_path / "store")
    log = store.scratch_dir(WHAT, "released") / LOG
    identities = []

    def interrupted(*arguments):
        identities.append(log.read_bytes().splitlines()[0])
        if arguments[0] == 1:
            raise KeyboardInterrupt

    def start():
        with pytest.raises(KeyboardInterrupt):
            jobs.run_job(job_of(store, weights), interrupted)

    start()
    image = log.read_bytes().splitlines()[1]
    other = Path(weights.parent / "other.safetensors")
    other.write_bytes(b"other weights")
    facts = json.loads(identities[0])
    for name in ("key", "weights", "val_fingerprint", "post_processing", "test_shorter_side", "device"):
        assert name in facts
        log.write_bytes(json.dumps(facts | {name: "another"}).encode() + b"\n" + 4 * (image + b"\n"))
        start()
        assert len(log.read_bytes().splitlines()) == 2, name
    jobs.run_job(job_of(store, other), Reporter())
    assert store.get(WHAT, "released").details["resumed_after_images"] == 0


def test_done_is_not_evaluated_again(tmp_path, stubbed, weights, monkeypatch):
    store = Store(tmp_path / "store")
    jobs.run_job(job_of(store, weights), Reporter())
    before = store.get(WHAT, "released")
    monkeypatch.setattr(released, "open_weights", None)
    moved = weights.rename(weights.with_name("moved.safetensors"))
    jobs.run_job(job_of(store, moved), Reporter())  # the same content
    assert store.get(WHAT, "released") == before


def test_record_of_another_file_is_kept_unless_forced(tmp_path, stubbed, weights):
    store = Store(tmp_path / "store")
    assert not is_done(store, WHAT, weights)
    old = fakes.released(WHAT)
    store.write(old)
    digest = sha256(b"weights").hexdigest()[:12]
    refusal = (
        rf"^(?!.*\n).*maskformer\.safetensors \(SHA-256 0123456789ab\).*some weights\.safetensors.*{digest}.*--force"
    )
    for check in (lambda: is_done(store, WHAT, weights), lambda: jobs.run_job(job_of(store, weights), Reporter())):
        with pytest.raises(BenchError, match=refusal):
            check()
    assert store.get(WHAT, "released") == old
    set_aside(store, "again", [Measurement(WHAT, "released")])
    jobs.run_job(job_of(store, weights), Reporter())
    assert store.get(WHAT, "released").details["weights"]["file"] == "some weights.safetensors"
    assert is_done(store, WHAT, weights)


def test_record_of_other_data_is_kept_unless_forced(tmp_path, weights):
    """The same checkpoint on a part of the data, then on all of it."""
    what = experiment("hcformer", "r50", "ade20k", "paper")
    store = Store(tmp_path / "store")
    synthesize("ade20k", tmp_path / "part", images=1)
    synthesize("ade20k", tmp_path / "all", images=2)
    part = split_fingerprint("ade20k", "validation", tmp_path / "part")
    facts = fakes.WEIGHTS | {"sha256": sha256(b"weights").hexdigest()}
    details = {"weights": facts, "val_fingerprint": part, "val_images": 1}
    store.write(replace(fakes.released(what), details=details))
    assert is_done(store, what, weights, tmp_path / "part") and is_done(store, what, weights, tmp_path / "nowhere")
    stale = details | {"post_processing": "version 1"}
    store.write(replace(fakes.released(what), details=stale))
    assert not is_done(store, what, weights, tmp_path / "part"), "evaluated again"
    store.write(replace(fakes.released(what), details=stale | {"weights": fakes.WEIGHTS}))
    with pytest.raises(BenchError, match="--force replaces it"):  # of another file, stale or not
        is_done(store, what, weights, tmp_path / "part")
    store.write(replace(fakes.released(what), details=details))
    with pytest.raises(BenchError, match=r"is of other data \(1 images\) than those in .*all: --force replaces it"):
        is_done(store, what, weights, tmp_path / "all")


@pytest.fixture
def converted(tmp_path):
    """A file as `bench weights convert` writes it, and its model."""
    model = build_model(WHAT, seed=5).eval()
    facts = {"source": "hub.bin", "source_sha256": "ab" * 32, "format": "some format", "content": "model"}
    path = tmp_path / "converted.safetensors"
    save_file(model.state_dict(), path, pack(facts | {"experiment": WHAT.to_dict()}))
    return path, model


def test_run_of_a_converted_file(tmp_path, monkeypatch, cache, converted):
    path, model = converted
    dataset, store = open_split("synthetic_panoptic", "val"), Store(tmp_path / "store")
    assert evaluate_released(WHAT, path, store, quiet=True) == []
    record = store.get(WHAT, "released")
    expected = evaluate(model, AS_IT_IS, dataset)
    assert {name: record.metrics[name]["value"] for name in METRICS} == pytest.approx(expected, abs=1e-3)
    assert expected["mIoU_pan"] > 0
    low, high = record.metrics["mIoU_pan"]["interval"]
    assert low < expected["mIoU_pan"] < high
    counts = read_counts(store.work_path(WHAT, "released") / IMAGE_COUNTS)
    assert {name: row.item() for name, row in counts.values().items()} == pytest.approx(expected, abs=1e-3)
    digest = sha256(path.read_bytes()).hexdigest()
    assert record.details["weights"] == {
        "file": "converted.safetensors", "sha256": digest, "source": "hub.bin", "source_sha256": "ab" * 32,
        "format": "some format",
    }  # fmt: skip
    monkeypatch.setattr("bench.run.plan.JobPool", None)
    assert evaluate_released(WHAT, path, store) == []


def test_file_of_another_experiment_is_refused(tmp_path, cache, converted):
    job = replace(job_of(Store(tmp_path / "store"), converted[0]), experiments=(replace(WHAT, num_queries=9),))
    with pytest.raises(BenchError, match=r"^(?!.*\n).*converted.safetensors has num queries 8"):
        jobs.run_job(job, Reporter())


@pytest.mark.parametrize(
    ("dataset", "metrics"),
    [
        ("coco_instance", ("AP", "AP_boundary")),
        ("ade20k", ("mIoU", "pixel_accuracy")),
        ("cityscapes", ("mIoU", "pixel_accuracy")),
    ],
)
def test_data_sets_of_every_task(tmp_path, monkeypatch, dataset, metrics):
    """Metrics of the task, on the data set's split for results; the saved predictions give them again."""
    monkeypatch.setattr(released, "inference_rules", lambda _: InferenceRules(128, 256))
    synthesize(dataset, tmp_path / "data", images=2)
    what = experiment("hcformer", "small", dataset, "small", decoder_layers=1, num_queries=8)
    model = build_model(what, seed=5).eval()
    facts = {"source": "hub.bin", "source_sha256": "ab" * 32, "format": "some format", "content": "model"}
    path, store = tmp_path / "converted.safetensors", Store(tmp_path / "store")
    save_file(model.state_dict(), path, pack(facts | {"experiment": what.to_dict()}))
    job = Job("released", (what,), str(store.path), weights=str(path), data_root=str(tmp_path / "data"))
    jobs.run_job(job, Reporter())
    record = store.get(what, "released")
    assert set(metrics) <= set(record.metrics) and all(record.metrics[name]["n"] == 2 for name in metrics)
    assert (record.details["val_images"], record.details["val_split"]) == (2, get_dataset(dataset).val_split)
    assert record.details["post_processing"] == post_processing(what)

    val_set = open_split(dataset, "val", tmp_path / "data")
    evaluator = make_evaluator(val_set)
    predictions = SavedPredictions(store.scratch_dir(what, "released") / "predictions", val_set)
    for image in val_set.images:
        evaluator.take(evaluator.measure(predictions.of(image)))
    found = evaluator.compute()
    assert {name: record.metrics[name]["value"] for name in metrics} == {name: found[name] for name in metrics}
    assert digest_of(path) in predictions.facts["model"]


def digest_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


# The log

IDENTITY = {"key": "a", "weights": "b"}
IMAGE = {"image": {"id": 7, "height": 2, "width": 3}, "detections": [{"score": 0.1 + 0.2, "segmentation": "é"}]}


def write_log(path: Path, images: int = 3) -> list[dict]:
    log = ImageLog(path, IDENTITY)
    assert list(log.replay()) == []
    for number in range(images):
        log.append(IMAGE | {"number": number})
    return [IMAGE | {"number": number} for number in range(images)]


def test_log_cut_at_any_byte_goes_on_after_the_last_whole_line(tmp_path):
    images = write_log(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    path = tmp_path / "cut"
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        log = ImageLog(path, IDENTITY)
        whole = max(0, sum(end <= cut for end in ends) - 1)
        assert list(log.replay()) == images[:whole], cut
        assert log.images == whole and (log.seconds > 0) == (whole > 0)
        for image in images[whole:]:
            log.append(image)
        assert list(ImageLog(path, IDENTITY).replay()) == images, cut


def test_log_after_damage_in_its_middle(tmp_path):
    images = write_log(tmp_path / "log")
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    (tmp_path / "log").write_bytes(b"".join([*lines[:2], b"\0" * 100 + b"\n", *lines[2:]]))
    assert list(ImageLog(tmp_path / "log", IDENTITY).replay()) == images[:1]
    assert (tmp_path / "log").read_bytes() == b"".join(lines[:2])


def test_log_of_another_identity_is_begun_anew(tmp_path):
    write_log(tmp_path / "log")
    other = IDENTITY | {"weights": "c"}
    assert list(ImageLog(tmp_path / "log", other).replay()) == []
    assert (tmp_path / "log").read_bytes() == json.dumps(other).encode() + b"\n"


def test_time_of_all_parts(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("bench.evaluation.image_log.time.monotonic", lambda: now)
    for part in range(3):
        log = ImageLog(tmp_path / "log", IDENTITY)
        assert len(list(log.replay())) == log.images == 2 * part
        assert log.seconds == pytest.approx(2 * part * 1.5)
        for _ in range(2):
            now += 1.5
            log.append(IMAGE)
        now += 1000


def test_post_processing_is_described_as_it_is():
    from inspect import signature

    from bench.evaluation.postprocess import instance_predictions, panoptic_segments

    panoptic = signature(panoptic_segments).parameters
    thresholds = panoptic["object_threshold"].default, panoptic["overlap_threshold"].default
    assert thresholds == (0.8, 0.8) and signature(instance_predictions).parameters["top_k"].default == 100
    assert "probability above 0.8, at least 0.8 of its mask won; instances: the 100 best" in post_processing(WHAT)
