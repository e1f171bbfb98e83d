"""`bench weights convert`, `bench weights inspect`, `bench predict` and `bench run --weights` as a user types them."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.transforms import preprocess
from bench.experiments.experiment import experiment
from bench.weights.files import sha256
from bench.weights.load import open_weights
from tests.conftest import mistake
from tests.fill import filled_image
from tests.parity import load_reference
from tests.reference import MEAN, STD, reference_state, relative_error
from tests.weights.checkpoints import official, write

MODEL = ("--method", "hcformer", "--backbone", "r50", "--dataset", "coco_panoptic")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A published checkpoint, small for its kind."""
    torch.manual_seed(0)
    chosen = experiment("hcformer", "r50", "coco_panoptic", "paper", decoder_layers=1, num_queries=5)
    return write(tmp_path_factory.mktemp("zoo") / "released.pkl", official(chosen) | {"extra": torch.ones(1).half()})


@pytest.fixture
def converted(bench, released, tmp_path):
    assert bench("weights", "convert", released, *MODEL, "-o", tmp_path / "w.safetensors")[0] == 0
    return tmp_path / "w.safetensors"


def picture(path, height=45, width=70):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path, torch.from_numpy(pixels).permute(2, 0, 1)


def test_convert_accounts_for_every_tensor(bench, released, tmp_path):
    code, out, errors = bench("weights", "convert", released, *MODEL, "-o", tmp_path / "w.safetensors")
    assert (code, errors) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{released}: HCFormer, published checkpoint (detectron2 names)"
    assert "decoder layers 1, num queries 5" in lines[1]
    assert lines[2] == "the model is complete, 1 tensors have no place in it"
    assert "not used, no place in the model: 1\n" in out and "extra" not in out
    assert f"used: {len(pickle.loads(released.read_bytes())['model']) - 1} tensors" in out
    assert lines[-2] == f"written: {tmp_path / 'w.safetensors'}"
    assert lines[-1].startswith(f"next: bench predict --weights {tmp_path / 'w.safetensors'} ")
    code, out, _ = bench("weights", "convert", released, "--tensors", "-o", tmp_path / "again.safetensors")
    assert "not used, no place in the model: 1: extra\n" in out
    assert "not used, not a tensor of the model: 1: __author__\n" in out


def test_method_backbone_and_data_set_are_read_from_the_file(bench, released, converted, tmp_path):
    assert bench("weights", "convert", released, "-o", tmp_path / "untyped.safetensors")[0] == 0
    assert sha256(tmp_path / "untyped.safetensors") == sha256(converted)


def test_inspect(bench, released, converted):
    code, out, _ = bench("weights", "inspect", released)
    lines = out.splitlines()
    assert code == 0 and lines[0] == f"{released}: HCFormer, published checkpoint (detectron2 names)"
    assert lines[1].startswith("method hcformer, backbone r50, dataset coco_panoptic, ")
    assert lines[2] == "the model is complete, 1 tensors have no place in it"
    assert f"next: bench weights convert {released} -o released.safetensors" in lines[3:8]
    assert "pickle" in out and sha256(released) in out and "other entries" in out and "clustering_layers" not in out
    code, out, _ = bench("weights", "inspect", released, "--tensors")
    assert code == 0 and "backbone.clustering_layers.0.temp" in out and "float16" in out
    code, out, _ = bench("weights", "inspect", converted)
    assert code == 0 and "converted by this program" in out and sha256(released) in out and sha256(converted) in out
    assert f"next: bench predict --weights {converted} IMAGE..." in out


def test_inspect_of_what_does_not_fit(bench, released, tmp_path):
    state = pickle.loads(released.read_bytes())["model"]
    less = {name: value for name, value in state.items() if "mask_embed" not in name}
    head = "sem_seg_head.predictor.class_embed"
    seven = {name: value[:8] if name.startswith(head) else value for name, value in state.items()}
    for content, words in [
        (less, "incomplete: 6 tensors are missing, 0 have another shape"),
        (less, "--partial"),
        (seven, "unclear: has 7 classes, as no data set here (coco_panoptic 133, "),
        ({"a": np.ones(2)}, "unknown, it holds no model that is known here"),
    ]:
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": content}))
        code, out, errors = bench("weights", "inspect", tmp_path / "x.pkl")
        assert (code, errors) == (0, "") and words in out


def test_predict_raw_is_what_the_model_returns(bench, converted, tmp_path):
    path, image = picture(tmp_path / "7.png")
    code, out, _ = bench("predict", "--weights", converted, "--method", "hcformer", path, "--raw", "--native-size")
    assert code == 0
    names = {"7.npz", "7.json", "7_panoptic.png", "7_semantic.png", "7_overlay.jpg"}
    assert names <= {p.name for p in (tmp_path / "predictions").iterdir()} and all(name in out for name in names)
    found, _ = out.splitlines()
    assert found.startswith(f"{path}: 0 segments: best score 0.") and found.endswith("7_overlay.jpg")
    with torch.inference_mode():
        expected = open_weights(converted).build()(preprocess([image]))
    raw = np.load(tmp_path / "predictions" / "7.npz")
    assert raw["class_logits"].shape == (5, 134) and raw["mask_logits"].shape == (5, 16, 24)
    assert relative_error(torch.from_numpy(raw["class_logits"]), expected.class_logits[0]) < 1e-5
    assert relative_error(torch.from_numpy(raw["mask_logits"]), expected.mask_logits[0]) < 1e-5
    assert json.loads((tmp_path / "predictions" / "7.json").read_text())["image"]["height"] == 45


def test_published_checkpoint_to_prediction_equals_the_reference_weights(bench, tmp_path):
    """Reference names and weights through files and commands: the same logits as the model of the parity test."""
    name, size = "hcformer_r50_level2", (50, 75)
    write(tmp_path / "a.pkl", reference_state(name))
    pixels = filled_image("input.image", (3, *size)).clamp(0, 255).byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    assert bench("weights", "convert", tmp_path / "a.pkl", *MODEL, "-o", tmp_path / "a.safetensors")[0] == 0
    arguments = ("--weights", tmp_path / "a.safetensors", *MODEL, "--hierarchical-level", 2, tmp_path / "image.png")
    assert bench("predict", *arguments, "--raw", "--native-size", "-o", tmp_path / "out")[0] == 0
    with torch.inference_mode():
        expected = load_reference(name).eval()(preprocess([pixels]))
    raw = np.load(tmp_path / "out" / "image.npz")
    assert relative_error(torch.from_numpy(raw["class_logits"]), expected.class_logits[0]) < 1e-4
    assert relative_error(torch.from_numpy(raw["mask_logits"]), expected.mask_logits[0]) < 1e-4


@pytest.mark.parametrize(
    ("name", "backbone", "dataset", "padded"),
    [
        ("maskformer_r50", "r50", "coco_panoptic", 1),
        ("maskformer_swins", "swin_s", "coco_panoptic", 1),
        ("mask2former_r50", "r50", "coco_panoptic", 32),
    ],
)
def test_checkpoint_on_an_odd_size_is_padded_as_its_authors_do(bench, tmp_path, name, backbone, dataset, padded):
    """75x110: MaskFormer's models for COCO see the image alone (SIZE_DIVISIBILITY 0), others on zeros to 96x128."""
    method, size = name.split("_")[0], (75, 110)
    write(tmp_path / "a.pkl", reference_state(name))
    pixels = filled_image("input.image", (3, *size)).clamp(0, 255).byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    model = ("--method", method, "--backbone", backbone, "--dataset", dataset)
    assert bench("weights", "convert", tmp_path / "a.pkl", *model, "-o", tmp_path / "a.safetensors")[0] == 0
    arguments = ("--weights", tmp_path / "a.safetensors", *model, tmp_path / "image.png")
    assert bench("predict", *arguments, "--raw", "--native-size", "-o", tmp_path / "out")[0] == 0
    image = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    image = torch.nn.functional.pad(image, (0, -size[1] % padded, 0, -size[0] % padded))
    with torch.inference_mode():
        expected = load_reference(name).eval()(image[None])
    raw = np.load(tmp_path / "out" / "image.npz")
    assert raw["mask_logits"].shape[1:] == ((19, 28) if padded == 1 else (24, 32))
    assert relative_error(torch.from_numpy(raw["class_logits"]), expected.class_logits[0]) < 1e-4
    assert relative_error(torch.from_numpy(raw["mask_logits"]), expected.mask_logits[0]) < 1e-4


class Command:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("ending", [".pkl", ".pth"])
def test_malicious_files_are_refused_and_nothing_runs(bench, tmp_path, ending):
    path, marker = tmp_path / f"evil{ending}", tmp_path / "it ran"
    content = {"model": {"backbone.stem.0.weight": Command(marker)}}
    path.write_bytes(pickle.dumps(content)) if ending == ".pkl" else torch.save(content, path)
    for command in (("inspect", path), ("convert", path, *MODEL, "-o", tmp_path / "w.safetensors")):
        mistake(bench("weights", *command), str(path), "posix.system")
    mistake(bench("predict", "--weights", path, "a.png"), str(path))
    mistake(bench("run", "--weights", path), str(path))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_mistakes(bench, released, converted, tmp_path):
    image, _ = picture(tmp_path / "a.png")
    mistake(bench("predict", "--weights", released, image), "not converted", "bench weights convert")
    mistake(bench("predict", "--weights", converted, "missing.png"), "missing.png")
    mistake(bench("predict", "--weights", converted, "*.webp"), "*.webp")
    mistake(bench("predict", "--weights", converted, image, "--device", "cuda:99"), "cuda:99", "cpu")
    mistake(bench("predict", "--weights", converted, image, "--threshold", "80"), "--threshold 80")
    mistake(bench("predict", "--weights", converted, "--num-queries", 7, image), "num queries 5", "--num-queries")
    mistake(bench("predict", "--weights", converted, "--method", "hcformre", image), "did you mean 'hcformer'")
    for weights in ((), ("--weights", "table1/hcformer-small")):
        answer = bench("predict", *weights, image)
        mistake(answer, "'bench weights export ROW --seed N'", "'bench weights convert'", "--weights" * (not weights))
    mistake(
        bench("weights", "convert", converted, "-o", tmp_path / "x.safetensors"), "converted already", "'bench run'"
    )
    mistake(bench("weights", "export", released), "'bench weights convert'")
    mistake(bench("weights", "export", converted), "use it as it is, with --weights")
    mistake(bench("weights", "convert", released, *MODEL, "-o", released), "-o")
    mistake(bench("weights", "convert", tmp_path / "none.pkl", *MODEL, "-o", tmp_path / "o.safetensors"), "none.pkl")
    mistake(bench("run", "--weights", converted), "--data-root or BENCH_DATA")
    mistake(bench("run", "table1", "--weights", converted), "of no row of table1")
    mistake(bench("run", "table1", "--method", "hcformer"), "--weights")
    mistake(bench("run"), "TABLE")
    assert not list(tmp_path.glob("results/**/*.json"))
