"""`bench gpu-check` without a GPU: its parts on the CPU or on given times, its processes, its mistakes."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.records import Store
from bench.run import jobs
from bench.speed import bandwidth, forms_check, gpu_check, gpu_parts
from bench.speed import timings as benchmark
from bench.speed.peak_memory import peak_memory
from tests.conftest import mistake
from tests.report.fakes import PROVENANCE
from tests.report.fakes import latency as latency_record

ROOT = Path(__file__).parents[2]
NOT_IN_EVERY_IMAGE = (
    "typer", "rich", "click", "pycocotools", "hotcoco", "faster_coco_eval", "cityscapesscripts", "transformers", "timm",
    "pandas", "tabulate", "safetensors", "scipy", "matplotlib", "fvcore",
)  # fmt: skip


def quiet(*_):
    pass


def bare(program):
    """Run a program where only torch, torchvision, numpy and Pillow can be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({NOT_IN_EVERY_IMAGE!r}))\n"
    return subprocess.run([sys.executable, "-c", blocked + program], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_one_line(bench, tmp_path):
    mistake(bench("gpu-check", "--store", tmp_path / "store"), "CUDA", "bench benchmark")
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_typer_too():
    result = bare("from bench.speed import gpu_check; sys.exit(gpu_check.main([]))")
    assert (result.returncode, result.stdout) == (2, "") and result.stderr.startswith("error: no CUDA device")


def test_unknown_part(bench, tmp_path):
    mistake(bench("gpu-check", "--part", "kernel"), "part 'kernel'", "did you mean 'kernels'")


def test_a_bare_torch_image_is_enough():
    """Everything that the parts import, but for the packages of single models and scipy in the training part."""
    result = bare(
        "import bench.speed.gpu_check, bench.speed.forms_check, bench.speed.bandwidth, bench.speed.peak_memory\n"
        "import bench.run.jobs, bench.measure.latency.timing, bench.experiments.tables\n"
        "from bench.experiments.experiment import experiment\n"
        "from bench.zoo import build_model\n"
        "import torch\n"
        "with torch.device('meta'):\n"
        "    for method in ('hcformer', 'hcformer+', 'maskformer'):\n"
        "        build_model(experiment(method, 'r50', 'coco_panoptic', 'paper'))\n"
        "from bench.speed.gpu_parts import missing_packages\n"
        "print([missing_packages(*m) for m in (('hcformer', 'r50'), ('hcformer', 'swin_s'), ('mask2former', 'r50'))])"
    )
    assert result.stdout.strip() == "[None, 'timm', 'transformers']", result.stderr[-2000:]


# --- The parts ---


@pytest.fixture
def small_shapes(monkeypatch):
    monkeypatch.setattr(forms_check, "SHAPES", ((2, 5, (5, 6)), (1, 3, (1, 1))))
    monkeypatch.setattr(gpu_parts, "forms_on", lambda device: ("reference",))


def test_kernels_pass_where_they_equal_the_definition(small_shapes, tmp_path):
    result, failures = gpu_parts.kernels("cpu", tmp_path, quiet, quiet)
    assert failures == [] and len(result["rows"]) == 6
    assert all(0 < row["error"] <= row["limit"] and row["cases"] == 4 for row in result["rows"])
    assert "clustering" in gpu_parts.PARTS["kernels"].show(result)


@pytest.mark.parametrize("error", [1e-3, math.nan])
def test_kernels_fail_where_one_is_wrong(small_shapes, tmp_path, monkeypatch, error):
    right = forms_check.decode

    def wrong(masks, assignment, *form):
        return right(masks, assignment) * (1 + (error if form else 0))

    monkeypatch.setattr(forms_check, "decode", wrong)
    result, failures = gpu_parts.kernels("cpu", tmp_path, quiet, quiet)
    assert len(failures) >= 1 and "reference decoding float32 is off by" in failures[0]
    assert [row["passed"] for row in result["rows"]][:3] == [True] * 3


def test_shares_of_the_copy_bandwidth(monkeypatch):
    """With 2 ms a call: a copy of 64 MiB moves 128 MiB in it, so an operation of floor F has the share F / 128 MiB."""
    monkeypatch.setattr(bandwidth, "_time", lambda *_: [1.0, 2.0, 30.0])
    result = bandwidth.measure_shares("cpu", ("reference",), quiet, sizes=("coarsest",), flush_bytes=2**26)
    assert result["copy_gb_s"] == pytest.approx(2**27 / 2e-3 / 1e9)
    pixels, clusters = 50 * 84, 25 * 42
    floors = {"clustering": 128 * (pixels + clusters) + 9 * pixels, "decoding": 100 * (pixels + clusters) + 9 * pixels}
    for row in result["rows"]:
        if row["share"] is None:
            assert row["operation"].endswith(", training")
            continue
        floor = floors[row["operation"]] * (4 if row["dtype"] == "float32" else 2)
        assert row["floor_mib"] * 2**20 == pytest.approx(floor, abs=4)
        assert row["share"] == pytest.approx(floor / 2**27, rel=1e-4)
    assert len(result["rows"]) == 8


def test_the_fastest_form_of_each_case():
    rows = [
        {"operation": "decoding", "size": "finest", "dtype": "float32", "form": form, "ms": ms}
        for form, ms in (("reference", 3.0), ("triton", 1.0), ("compiled", 2.0))
    ]
    assert bandwidth.fastest_forms(rows) == {"decoding finest float32": "triton"}


def test_calls_are_really_timed():
    calls = []
    samples = bandwidth._time(lambda: calls.append(1), "cpu", torch.ones(4))
    assert len(samples) == bandwidth.SAMPLES and len(calls) == bandwidth.SAMPLES + bandwidth.WARM_UP
    assert all(sample >= 0 for sample in samples)


@pytest.mark.parametrize(
    "losses, fails", [([3.0, 2.0, 1.0], False), ([1.0, 2.0, 3.0], True), ([3.0, math.nan, 1.0], True)]
)
def test_training_needs_finite_losses_that_fall(monkeypatch, tmp_path, losses, fails):
    monkeypatch.setattr(gpu_parts, "TRAINING_STEPS", 2)
    values = iter(losses)
    monkeypatch.setattr(benchmark, "training_functions", lambda device, mixed_precision: {"step": lambda: next(values)})
    result, failures = gpu_parts.training("cpu", tmp_path, quiet, quiet)
    assert bool(failures) == fails and result["rows"][0]["first_loss"] == losses[0]
    assert len(result["samples"]["step"]) == 2


def test_training_steps_in_mixed_precision(monkeypatch):
    """The real step, on a small crop: the loss is that of float32 but for bfloat16's rounding."""
    monkeypatch.setattr(benchmark, "TRAINING_CROP", 160)
    monkeypatch.setattr(benchmark, "fast_form", lambda device: "reference")
    torch.manual_seed(0)
    losses = []
    for mixed in (False, True):
        torch.manual_seed(1)
        losses.append(benchmark.training_functions("cpu", mixed_precision=mixed)["train step hcformer"]())
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.03)


def test_memory_of_an_operation_alone():
    """Decoding writes a map of 100 x 200 x 336 floats: at least that is added, in a fresh process."""
    measured = peak_memory("decoding, reference", "cpu")
    assert 100 * 200 * 336 * 4 / 2**20 <= measured["added_mib"] <= measured["peak_mib"]


def test_latency_shows_ratios_and_says_what_is_left_out(monkeypatch, tmp_path):
    def run_job(job, progress):
        assert job.kind == "latency" and Store(job.store).load_all() == [], "an earlier check's are set aside"
        for experiment in job.experiments:
            Store(job.store).write(latency_record(experiment, 30.0 if experiment.method == "maskformer" else 15.0))

    monkeypatch.setattr(jobs, "run_job", run_job)
    monkeypatch.setattr(gpu_parts, "missing_packages", lambda method, backbone: "timm" if backbone != "r50" else None)
    result, failures = gpu_parts.latency("cpu", tmp_path, quiet, quiet)
    assert failures == [] and len(result["rows"]) == 4 and len(result["left_out"]) == 8
    assert {row["method"]: row["over_maskformer"] for row in result["rows"]}["hcformer"] == 0.5
    assert "timm is not installed" in gpu_parts.PARTS["latency"].show(result)
    gpu_parts.latency("cpu", tmp_path, quiet, quiet)


# --- The processes ---


@pytest.fixture
def with_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")


def test_a_part_that_needs_too_long_is_ended_and_the_next_one_runs(with_device, tmp_path):
    """Both in real processes: the first has no time to import torch, the second fails because there is no device."""
    store = tmp_path / "store"
    (store).mkdir()
    (store / "gpu_check.json").write_text(
        json.dumps({"memory": {"state": "passed", "seconds": 1, "reason": "", "result": None}})
    )
    seconds = gpu_parts.PARTS["training"].seconds
    path, passed = gpu_check.check(store, ["kernels", "training"], limit_s=seconds + 0.3)
    results = gpu_check.read(path)
    assert not passed and results["kernels"]["state"] == "out of time" and results["memory"]["state"] == "passed"
    if not torch.cuda.device_count():
        assert results["training"]["state"] == "failed" and "NVIDIA" in results["training"]["reason"]
        assert results["training"]["provenance"]["commit"]
    assert [file.name for file in store.iterdir()] == ["gpu_check.json"]
    assert "kernels: out of time" in gpu_check.text(results)


@pytest.mark.parametrize(
    "run, state, reason",
    [
        (lambda *_: ({"rows": []}, []), "passed", ""),
        (lambda *_: ({"rows": []}, ["a is wrong"]), "failed", "a is wrong"),
        (lambda *_: __import__("no_such_package"), "skipped", "package no_such_package is not installed"),
        (lambda *_: torch.ones(2) @ torch.ones(3), "failed", "RuntimeError"),
    ],
)
def test_how_a_part_can_end(monkeypatch, tmp_path, run, state, reason):
    monkeypatch.setitem(gpu_parts.PARTS, "memory", gpu_parts.Part(run, 1.0, str))
    gpu_check._child("memory", tmp_path, 10)
    part = json.loads((tmp_path / ".gpu_check-memory.json").read_text())
    assert part["state"] == state and reason in part["reason"]


def test_latencies_of_another_machine_are_not_overwritten(bench, with_device, tmp_path):
    Store(tmp_path).write(latency_record())
    mistake(bench("gpu-check", "--store", tmp_path), PROVENANCE["cpu"], "GPU", "--store")


def test_a_damaged_result_is_named(bench, with_device, tmp_path):
    (tmp_path / "gpu_check.json").write_text("[]")
    mistake(bench("gpu-check", "--store", tmp_path), "gpu_check.json", "delete")
