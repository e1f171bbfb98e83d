"""Interleaving, sample counts, budget and resume of the latency run, with tiny models."""

import json
import re
import subprocess
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.evaluation.postprocess import panoptic_segments, resize_masks
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import experiment
from bench.experiments.inference_rules import is_padding
from bench.experiments.methods import get_method
from bench.experiments.tables import latency_bases
from bench.measure.complexity.protocol import ImageSizes
from bench.measure.latency import timing as latency
from bench.measure.latency import workbench
from bench.measure.latency.timing import LatencyProtocol, measure_latency, summarise, timed_image
from bench.measure.latency.workbench import Workbench, post_process, synthetic_prediction
from models import shifted
from models.outputs import MaskPrediction, PixelPrediction
from tests.report.fakes import R50

EXPERIMENTS = [experiment(m, "small", "synthetic_panoptic", "small") for m in ("hcformer", "maskformer", "mask2former")]
KEYS = [e.key for e in EXPERIMENTS]
CLASSES = get_dataset("synthetic_panoptic").num_classes
SIZES = ImageSizes((24, 32), (48, 60), (48, 64))
PROTOCOL = LatencyProtocol((32, 32), warm_up_passes=1, min_rounds=3, max_rounds=5)


class Killed(Exception):
    pass


class Recorder:
    """Builds tiny models that note every pass; the pass number `kill_at` fails."""

    def __init__(self, kill_at: int | None = None, delay_s: float = 0.0):
        self.passes: list[tuple[str, tuple[int, int]]] = []
        self.images: dict[tuple[str, tuple[int, int]], torch.Tensor] = {}
        self.kill_at, self.delay_s, self.classes = kill_at, delay_s, CLASSES

    def __call__(self, experiment) -> nn.Module:
        recorder = self

        class Tiny(nn.Module):
            def __init__(self):
                super().__init__()
                self.masks = nn.Conv2d(3, 7, 4, stride=4)

            def forward(self, images):
                if len(recorder.passes) == recorder.kill_at:
                    raise Killed
                recorder.passes.append((experiment.key, tuple(images.shape[-2:])))
                recorder.images[recorder.passes[-1]] = images
                time.sleep(recorder.delay_s)
                if get_method(experiment.method).predicts == "pixels":
                    return PixelPrediction(self.masks(images))
                return MaskPrediction(torch.zeros(1, 7, recorder.classes + 1), self.masks(images))

        return Tiny()


def run(path, recorder, budget_s=0.0, **options):
    options = {"protocol": PROTOCOL, "image": SIZES} | options
    return measure_latency(options.pop("experiments", EXPERIMENTS), path, budget_s, build=recorder, **options)


def test_rounds_are_interleaved_after_the_warm_up(tmp_path):
    recorder, calls = Recorder(), []
    results = run(tmp_path / "log", recorder, progress=lambda *call: calls.append(call))
    assert recorder.passes[:3] == [(key, (32, 32)) for key in KEYS]
    assert recorder.passes[3:] == [(key, SIZES.padded) for key in KEYS] * 3
    for key in KEYS:
        samples = results[key].samples
        assert {name: len(values) for name, values in samples.items()} == {
            "latency_network": 3,
            "latency_end_to_end": 3,
        }
        pairs = zip(samples["latency_network"], samples["latency_end_to_end"], strict=True)
        assert all(0 < network < end_to_end for network, end_to_end in pairs)
        assert results[key].metrics["latency_network"]["n"] == 3
    assert len({result.details["run"] for result in results.values()}) == 1
    assert calls[-1][:2] == (9, 9) and all(done <= total for done, total, _ in calls)


def test_samples_of_what_an_experiment_is_compared_with(tmp_path, monkeypatch):
    """Where it is timed in the same run; in the same rounds."""
    first, second, third = EXPERIMENTS
    monkeypatch.setattr(latency, "latency_bases", lambda e: {first: (third, R50), second: (R50,)}.get(e, ()))
    results = run(tmp_path / "log", Recorder())
    beside = {name: results[third.key].samples[name] for name in ("latency_network", "latency_end_to_end")}
    assert set(results[first.key].metrics) == set(beside)
    assert results[first.key].samples.items() >= {f"{name} of {third.key}": of for name, of in beside.items()}.items()
    assert [set(results[e.key].samples) for e in (second, third)] == [set(beside)] * 2


def test_details_are_plain_facts(tmp_path, monkeypatch):
    loads = iter([0.52, *[1.0] * 7, 2.06])
    monkeypatch.setattr(latency.os, "getloadavg", lambda: (next(loads), 9.0, 9.0), raising=False)
    details = run(tmp_path / "log", Recorder())[KEYS[1]].details
    assert re.fullmatch("[0-9a-f]{12}", details.pop("run"))
    assert all(isinstance(fact, str | int) for fact in details.values())
    expected = {
        "image_size": "48x60",
        "padding": "maskformer: to a multiple of 32",
        "original_size": "24x32",
        "post_processing": "panoptic segments of a synthetic prediction with 20 confident queries",
        "warm_up": "1 pass(es) at 32x32",
        "rounds": 3,
        "load_average": "0.5 to 2.1",
        "batch_norms": "not folded",
    }
    assert {name: details[name] for name in expected} == expected


def test_details_name_the_form_of_clustering_that_ran(tmp_path, monkeypatch):
    """Also where the process that writes the record has timed nothing itself."""
    monkeypatch.setattr(shifted.Compiled, "works", False)  # no compiler was found
    assert run(tmp_path / "log", Recorder())[KEYS[0]].details["clustering"] == "reference"
    monkeypatch.setattr(shifted.Compiled, "works", None)
    recorder = Recorder()
    assert run(tmp_path / "log", recorder)[KEYS[0]].details["clustering"] == "reference" and not recorder.passes


def test_a_machine_without_load_average(tmp_path, monkeypatch):
    monkeypatch.delattr(latency.os, "getloadavg", raising=False)
    first = run(tmp_path / "log", Recorder())
    assert "load_average" not in first[KEYS[0]].details
    assert run(tmp_path / "log", Recorder(kill_at=0)) == first


def test_all_models_see_the_same_image_of_noise(tmp_path):
    recorder = Recorder()
    run(tmp_path / "log", recorder)
    images = [recorder.images[key, SIZES.padded] for key in KEYS]
    assert all(torch.equal(image, images[0]) for image in images)
    assert images[0].std() == pytest.approx(1, abs=0.05) and len(images[0].unique()) > 0.9 * images[0].numel()
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in images)


def test_more_rounds_while_they_fit_the_budget(tmp_path):
    assert len(run(tmp_path / "a", Recorder(), budget_s=60)[KEYS[0]].samples["latency_network"]) == 5  # max_rounds
    slow = run(tmp_path / "b", Recorder(delay_s=0.05), budget_s=0.1)  # a round takes 0.15 s
    assert len(slow[KEYS[0]].samples["latency_network"]) == 3  # min_rounds


@pytest.mark.parametrize("torn", ["", '{"context": "ab', "null\n[1]\n", '{"round": 1}\n\xff'])
def test_a_killed_run_goes_on_in_the_same_round(tmp_path, torn):
    path = tmp_path / "log"
    with pytest.raises(Killed):
        run(path, Recorder(kill_at=3 + 4))  # warm-up, first round, one timing of the second
    before = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["round"], line["key"]) for line in before] == [*((0, key) for key in KEYS), (1, KEYS[0])]
    with open(path, "a", encoding="latin-1") as file:
        file.write(torn)

    recorder = Recorder()
    results = run(path, recorder)
    assert [key for key, size in recorder.passes if size == SIZES.padded] == KEYS[1:] + KEYS
    assert results[KEYS[0]].samples["latency_network"][:2] == [before[0]["network_ms"], before[3]["network_ms"]]
    assert results[KEYS[0]].details["run"] == before[0]["run"]
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 9


def test_a_finished_run_times_nothing_again(tmp_path):
    first = run(tmp_path / "log", Recorder())
    recorder = Recorder()
    assert run(tmp_path / "log", recorder) == first and recorder.passes == []


def test_samples_of_another_machine_are_dropped(tmp_path, monkeypatch):
    path = tmp_path / "log"
    first = run(path, Recorder())
    facts = latency.provenance.collect()
    monkeypatch.setattr(latency.provenance, "collect", lambda: facts | {"cpu": "another"})
    recorder = Recorder()
    second = run(path, recorder)
    assert len(recorder.passes) == 3 + 9
    assert second[KEYS[0]].details["run"] != first[KEYS[0]].details["run"]
    assert len(path.read_text().splitlines()) == 9


def test_samples_of_other_edits_are_dropped(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=code, check=True)

    def times_anew():
        recorder = Recorder()
        run(tmp_path / "log", recorder)
        return bool(recorder.passes)

    code = tmp_path / "code"
    code.mkdir()
    git("init", "-q")
    (code / "model.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(latency.provenance, "REPOSITORY", code)
    assert times_anew() and not times_anew()
    (code / "store").mkdir()  # of the user, in the checkout, which nothing else has changed
    (code / "store" / "new.json").write_text("{}")
    assert not times_anew()
    for file, text in (("model.py", "a = 2\n"), ("model.py", "a = 3\n"), ("new.py", "b = 1\n"), ("new.py", "b = 2\n")):
        (code / file).write_text(text)
        assert times_anew() and not times_anew()
    (code / "results").mkdir()
    (code / "results" / "new.json").write_text("{}")
    assert not times_anew()


def test_models_share_memory_but_layers_do_not():
    def build(experiment):
        wide = 64 if experiment is EXPERIMENTS[1] else 32
        return nn.Sequential(nn.Linear(32, wide), nn.Linear(wide, 33))

    bench = Workbench(EXPERIMENTS, "cpu", build, dict.fromkeys(KEYS, SIZES))
    storages = set()
    for model in bench.models.values():
        first, second = (layer.weight for layer in model)
        storages.add(first.untyped_storage().data_ptr())
        assert first.data_ptr() + 4 * first.numel() <= second.data_ptr() and second.data_ptr() % 64 == 0
    assert len(storages) == 1


def test_the_synthetic_prediction_gives_post_processing_its_work():
    class_logits, mask_logits = synthetic_prediction(100, 134, 200, 272)
    masks = resize_masks(mask_logits, (800, 1088), (800, 1067), (480, 640))
    result = panoptic_segments(class_logits, masks, [True] * 80 + [False] * 53)
    assert len(result.segments) == 20
    assert 0.5 < (result.segmentation > 0).float().mean() < 1


def test_post_processing_is_that_of_the_task():
    sizes = ((64, 96), (64, 90), (40, 60))

    def of_masks(dataset, classes):
        logits = (part[None] for part in synthetic_prediction(100, classes + 1, 16, 24))
        return post_process(MaskPrediction(*logits), experiment("hcformer", "r50", dataset, "paper"), sizes)

    panoptic = of_masks("coco_panoptic", 133)
    assert len(panoptic.panoptic.segments) == 20 and panoptic.instances is panoptic.labels is None
    instances = of_masks("coco_instance", 80).instances
    assert instances.masks.shape == (100, 40, 60) and int(instances.masks.flatten(1).any(1).sum()) == 20
    labels = of_masks("ade20k", 150).labels
    assert labels.shape == (40, 60) and set(labels.unique().tolist()) == set(range(20))
    logits = torch.randn(19, 16, 24)
    padded = F.interpolate(logits[None], (64, 96), mode="bilinear")[..., :90]
    expected = F.interpolate(padded, (40, 60), mode="bilinear")[0].argmax(0)
    of_pixels = experiment("pspnet", "r101", "cityscapes", "paper")
    assert torch.equal(post_process(PixelPrediction(logits[None]), of_pixels, sizes).labels, expected)


@pytest.mark.parametrize("queries", [100, 200])
def test_the_best_instances_are_of_a_hundred_queries(queries):
    """Each of their masks is resized, as for a model that predicts different things with different queries."""
    class_logits, _ = synthetic_prediction(queries, 81, 2, 2)
    pairs = class_logits.softmax(-1)[:, :-1].flatten().topk(100).indices
    assert len((pairs // 80).unique()) == 100


def test_a_group_of_pixel_models(tmp_path):
    pixel = [experiment(method, "small", "camvid", "small") for method in ("pspnet", "hc_pspnet")]
    results = run(tmp_path / "log", Recorder(), experiments=pixel)
    for e in pixel:
        assert results[e.key].details["post_processing"] == "the class logits brought to the original size and argmax"
        assert len(results[e.key].samples["latency_end_to_end"]) == 3


@pytest.mark.parametrize(
    ("what", "padded", "text"),
    [
        (("hcformer", "r50", "coco_panoptic"), (800, 1088), "panoptic segments"),
        (("mask2former", "swin_l", "coco_instance"), (800, 1088), "100 best instances"),
        (("hcformer", "swin_s", "ade20k"), (512, 512), "labels"),
        (("hcformer", "swin_l", "ade20k"), (640, 640), "labels"),
        (("maskformer", "r50", "cityscapes"), (1024, 2048), "labels"),
        (("hc_pspnet", "r101", "cityscapes"), (1024, 2048), "argmax"),
    ],
)
def test_image_and_post_processing_of_the_data_sets(what, padded, text):
    e = experiment(*what, "paper")
    assert timed_image(e).padded == padded and text in latency._made_of(e)


def test_every_method_is_timed_on_its_own_padding(tmp_path):
    """MaskFormer's models for COCO take images as they are; in one run, from the same image."""
    together = [experiment(method, "r50", "coco_panoptic", "paper") for method in ("hcformer", "maskformer")]
    sizes = [timed_image(e) for e in together]
    assert sizes == [ImageSizes((480, 640), (800, 1067), (800, width)) for width in (1088, 1067)]
    recorder = Recorder()
    recorder.classes = 133
    results = run(tmp_path / "log", recorder, experiments=together, image=None)
    assert recorder.passes[2:4] == [(together[0].key, (800, 1088)), (together[1].key, (800, 1067))]
    details = [results[e.key].details for e in together]
    assert {(d["image_size"], d["original_size"]) for d in details} == {("800x1067", "480x640")}
    assert details[0]["padding"] == "hcformer: to a multiple of 32, maskformer: none"
    assert "maskformer: none" in details[1]["padding"]
    for e, result in zip(together, details, strict=True):  # as the store judges them
        assert is_padding(result["padding"], [e, *(base for base in latency_bases(e) if base in together)])


def test_post_processing_is_timed_by_the_method_s_rule(monkeypatch):
    cuts = []
    monkeypatch.setattr(workbench, "results_of", lambda *_, cut_to_mask: cuts.append(cut_to_mask))
    for method in ("maskformer", "mask2former"):
        post_process(None, experiment(method, "r50", "coco_panoptic", "paper"), ())
    assert cuts == [False, True]


def test_one_run_has_one_image_size(tmp_path):
    others = [experiment("hcformer", backbone, "ade20k", "paper") for backbone in ("r50", "swin_l")]
    with pytest.raises(ValueError, match="one image size"):
        run(tmp_path / "log", Recorder(), experiments=others, image=None)


def test_samples_of_another_image_are_dropped(tmp_path):
    run(tmp_path / "log", Recorder())
    recorder = Recorder()
    run(tmp_path / "log", recorder, image=ImageSizes((24, 32), (64, 64), (64, 64)))
    assert [size for _, size in recorder.passes] == [(32, 32)] * 3 + [(64, 64)] * 9


def test_without_a_warm_up_size_the_image_s_own(tmp_path):
    recorder = Recorder()
    details = run(tmp_path / "log", recorder, protocol=LatencyProtocol(None, 2, 1, 1))[KEYS[0]].details
    assert {size for _, size in recorder.passes} == {SIZES.padded} and len(recorder.passes) == 3 * 3
    assert details["warm_up"] == "2 pass(es) at 48x64"


def test_summary_by_hand():
    assert summarise([4.0, 1.0, 3.0, 2.0, 5.0]) == {"value": 3.0, "unit": "ms", "n": 5, "p90": pytest.approx(4.6)}


def test_a_missing_gpu_is_one_line(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BenchError, match="cuda"):
        run(tmp_path / "log", Recorder(), device="cuda")
