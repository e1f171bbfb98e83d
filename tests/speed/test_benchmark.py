"""`bench benchmark`: what it writes and prints, from given times; the listings against clustering and decoding."""

import json

import matplotlib.font_manager  # noqa: F401  (asks the system for its fonts, in a process)
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from bench.speed import benchmark
from bench.speed import timings as profiling
from bench.speed.listings import listing_1, listing_2
from bench.speed.peak_memory import OPERATIONS
from bench.speed.timings import GROUPS, METHODS, RATIOS, interleaved, ratios
from models.clustering import cluster, decode
from tests.report.fakes import PROVENANCE

NAMES = {name for pair in RATIOS.values() for name in pair} | set(METHODS) | set(OPERATIONS)
SAMPLES = {name: [10.0 * (i + 1), 1000.0, 10.0 * (i + 1)] for i, name in enumerate(sorted(NAMES))}


def test_ratios_are_of_medians():
    expected = {name: SAMPLES[over][0] / SAMPLES[under][0] for name, (over, under) in RATIOS.items()}
    assert ratios(SAMPLES) == pytest.approx(expected)


def test_functions_take_turns_and_the_first_turn_does_not_count():
    calls, reports = [], []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    samples = interleaved(functions, 3, "cpu", reports.append)
    assert calls == reports == ["a", "b"] * 4
    assert {name: len(values) for name, values in samples.items()} == {"a": 3, "b": 3}
    calls.clear()
    interleaved(functions, 1, "cpu", reports.append, settle=True)
    assert calls == ["a", "a", "b", "b"] * 2


def test_listings_are_the_same_computation():
    """Listing 1 but for the border, where its zero padding takes part in the softmax; listing 2 everywhere."""
    torch.manual_seed(0)
    fine, coarse = F.normalize(torch.randn(2, 6, 12, 16), dim=1), F.normalize(torch.randn(2, 6, 6, 8), dim=1)
    ours, listing = cluster(fine, coarse, torch.tensor([0.1])), listing_1(fine, coarse, torch.tensor([0.1]))
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], listing[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(decode(coarse, ours), listing_2(coarse, ours))


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Nothing is measured; the names of what would be, in their order."""
    measured = []

    def give(result):
        return lambda what, *_: measured.append(what) or result

    monkeypatch.setattr(benchmark, "timings", give(SAMPLES))
    monkeypatch.setattr(benchmark, "peak_memory", give({"peak_mib": 900.0, "added_mib": 100.0}))
    monkeypatch.setattr(benchmark, "_flops", lambda method: 10**9 * (1 + METHODS.index(method)))
    facts = PROVENANCE | {"cores": 2, "threads": 2, "platform": "x", "command": "x", "dirty": False}
    monkeypatch.setattr(benchmark.provenance, "collect", lambda: facts)
    monkeypatch.setattr(benchmark.provenance, "state", lambda: facts)
    return measured


def test_command_writes_json_and_chart_and_prints_ratios(bench, tmp_path, measured):
    code, out, _ = bench("benchmark", "--store", tmp_path / "store")
    assert code == 0 and "network, HCFormer / MaskFormer" in out and "900.0" in out
    written = json.loads((tmp_path / "store" / "benchmark.json").read_text())
    assert written["ratios"] == ratios(SAMPLES) and written["samples"] == SAMPLES
    assert written["clustering"] == "compiled" and "decoding that ran: compiled." in out
    assert written["machine"]["cpu"] and written["provenance"]["commit"]
    assert written["flops_g"] == {method: 1.0 + i for i, method in enumerate(METHODS)}
    with Image.open(tmp_path / "store" / "figures" / "speed.png") as picture:
        assert picture.width > 600 and len(picture.convert("RGB").getcolors(1 << 24)) > 10


def test_a_file_of_before_the_folded_norms_is_printed(tmp_path):
    """As the one with a profile of copies, without the form that ran and some of today's ratios."""
    names = list(RATIOS)[:2]
    memory = {name: {"peak_mib": 900.0, "added_mib": 100.0} for name in (*METHODS, *OPERATIONS)}
    old = {
        "ratios": {name: 0.5 for name in names},
        "median_ms": {name: 10.0 for name in (*METHODS, *OPERATIONS)},
        "peak_memory_mib": memory,
        "copies": {"fast": {"copies": 246}},
        "flops_g": {method: 80.0 for method in METHODS},
        "samples": {name: [10.0] for name in (*METHODS, *OPERATIONS)},
    }
    (tmp_path / "benchmark.json").write_text(json.dumps(old))
    printed = benchmark.tables(tmp_path / "benchmark.json")
    labels = {name: benchmark.LABELS[name] in printed for name in RATIOS}
    assert labels == {name: name in names for name in RATIOS} and "fast form" not in printed


def test_a_killed_run_goes_on_after_the_last_part_that_it_measured(tmp_path, measured, monkeypatch):
    def run(killed_at=None):
        def progress(done, total, label):
            assert 0 <= done < total
            if label == killed_at:
                raise KeyboardInterrupt

        measured.clear()
        return benchmark.benchmark(tmp_path, progress)

    everything = [*GROUPS, *METHODS, *OPERATIONS]
    with pytest.raises(KeyboardInterrupt):
        run("memory of listing 1")
    assert measured == everything[: everything.index("listing 1")] and not (tmp_path / "benchmark.json").exists()
    run()
    assert measured == everything[everything.index("listing 1") :]
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["samples"] == SAMPLES and set(written["peak_memory_mib"]) == {*METHODS, *OPERATIONS}
    run()
    assert measured == everything  # a finished run leaves nothing to go on from
    with pytest.raises(KeyboardInterrupt):
        run("memory of listing 2")
    monkeypatch.setattr(benchmark.provenance, "state", lambda: {"commit": "another"})
    run()
    assert measured == everything


def test_every_call_is_reported(monkeypatch):
    functions = {"a": lambda: None, "b": lambda: None}
    monkeypatch.setitem(profiling.GROUPS, "two", (lambda device: functions, 2))
    reports = []
    profiling.timings("two", "cpu", 3, lambda *report: reports.append(report))
    labels = ["preparing two", *"ab" * 4]
    assert reports == list(enumerate(labels)) and len(labels) - 1 == profiling.calls("two", 3)


def test_a_store_that_cannot_be_written_shows_before_anything_is_timed(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "timings", lambda *_: pytest.fail("something was timed"))
    (tmp_path / "file").touch()
    code, out, errors = bench("benchmark", "--store", tmp_path / "file" / "store")
    assert (code, out) == (2, "") and f"error: {tmp_path / 'file'}" in errors
