"""`predict_images`: its files against official evaluators and the model called by hand, and what it refuses."""

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from panopticapi.evaluation import pq_compute_single_core
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from bench import files
from bench.data.images import FORMATS, find_images, read_image
from bench.data.registry import open_split
from bench.data.synthesis import synthetic
from bench.data.transforms import preprocess
from bench.errors import BenchError
from bench.evaluation.postprocess import resize_masks, semantic_scores
from bench.experiments.experiment import experiment
from bench.experiments.inference_rules import InferenceRules
from bench.measure import predict
from bench.measure.predict import check_images, image_ids, predict_images
from bench.zoo import build_model
from models.outputs import MaskPrediction
from tests.measure.test_accuracy import Oracle

SMALL = experiment("hcformer", "small", "synthetic_panoptic", "small")


def run(model, images, out, exp=SMALL, raw=False, native_size=True, threshold=None):
    return list(predict_images(model, exp, images, out, raw, native_size, threshold))


def picture(path: Path, height: int = 40, width: int = 70) -> Path:
    """An image of noise, different for each name."""
    pixels = np.random.default_rng(len(path.name) + sum(path.name.encode())).integers(0, 256, (height, width, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


class LeftHalf(nn.Module):
    """Its first query is class 0 on the left half of its input, its second class 1 on the right; notes the inputs."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.unused, self.num_classes, self.inputs = nn.Parameter(torch.zeros(1)), num_classes, []

    def forward(self, images):
        assert not self.training and torch.is_inference_mode_enabled()
        self.inputs.append(images)
        height, width = (side // 4 for side in images.shape[2:])
        left = torch.full((height, width), -9.0)
        left[:, : width // 2] = 9
        classes = torch.zeros(1, 2, self.num_classes + 1)
        classes[0, 0, 0], classes[0, 1, 1] = 12, 10
        return MaskPrediction(classes, torch.stack([left, -left])[None])


@pytest.fixture
def model():
    return build_model(SMALL, seed=0)


def content(path: Path) -> dict | list:
    return json.loads(path.read_bytes())


# Results


def test_official_evaluators_find_a_perfect_prediction(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 1, "val": 4})
    dataset = open_split("synthetic_panoptic", "val", tmp_path)
    images, out = [dataset.image_dir / image["file_name"] for image in dataset.images], tmp_path / "out"
    run(Oracle(dataset), images, out, native_size=False)

    truth, found = content(dataset.annotation_file), content(out / "panoptic.json")
    assert [(c["id"], c["name"], c["isthing"]) for c in found["categories"]] == [
        (c["id"], c["name"], c["isthing"]) for c in truth["categories"]
    ]
    assert [image["id"] for image in found["images"]] == [image["id"] for image in truth["images"]]
    categories = {c["id"]: c for c in found["categories"]}
    for reference, folder in ((truth, dataset.panoptic_dir), (found, out)):
        pairs = list(zip(reference["annotations"], found["annotations"], strict=True))
        counts = pq_compute_single_core(0, pairs, str(folder), str(out), categories)
        quality = counts.pq_average(categories, isthing=None)[0]
        assert quality["pq"] == 1 and quality["n"] >= 8

    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(dataset.instance_file))
        evaluation = COCOeval(reference, reference.loadRes(str(out / "instances.json")), "segm")
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)

    labels = np.array(Image.open(out / "001003_semantic.png"))
    sample = dataset[2]
    for label, mask in zip(sample.labels, sample.masks, strict=True):
        assert (labels[mask.numpy()] == synthetic.CATEGORY_IDS[label]).all()


def test_small_model_raw_outputs_are_the_model_s(tmp_path, model):
    image = picture(tmp_path / "7.png", 45, 70)
    (written,) = run(model, [image], tmp_path / "out", raw=True)
    names = {"7_panoptic.png", "7_semantic.png", "7_overlay.jpg", "7.json", "7.npz"}
    assert set(written.files) == names and written.picture == "7_overlay.jpg"
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"panoptic.json", "instances.json"}

    pixels = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)
    with torch.inference_mode():
        batch = preprocess([pixels])
        expected = model(batch)
    raw = np.load(tmp_path / "out" / "7.npz", allow_pickle=False)
    assert batch.shape == (1, 3, 64, 96) and set(raw) == {"class_logits", "mask_logits"}
    for name in raw:
        assert raw[name].dtype == np.float32
        np.testing.assert_allclose(raw[name], getattr(expected, name)[0].numpy(), rtol=1e-4, atol=1e-5)
    masks = resize_masks(torch.from_numpy(raw["mask_logits"]), (64, 96), (45, 70), (45, 70))
    labels = semantic_scores(torch.from_numpy(raw["class_logits"]), masks).argmax(0)
    assert np.array_equal(
        np.array(Image.open(tmp_path / "out" / "7_semantic.png")), np.array(synthetic.CATEGORY_IDS)[labels]
    )


def test_random_model_finds_no_segments(tmp_path, model):
    run(model, [picture(tmp_path / "a.png")], tmp_path / "out")
    assert content(tmp_path / "out" / "a.json")["panoptic"]["segments_info"] == []
    assert not np.array(Image.open(tmp_path / "out" / "a_panoptic.png")).any()
    assert content(tmp_path / "out" / "panoptic.json")["annotations"] == [
        {"image_id": 1, "file_name": "a_panoptic.png", "segments_info": []}
    ]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (70, 33), (32, 65)])
def test_odd_sizes_by_hand(tmp_path, size):
    height, width = size
    model, image = LeftHalf(), picture(tmp_path / "a.png", height, width)
    run(model, [image], tmp_path / "out")
    padded = -(-width // 32) * 32
    assert model.inputs[0].shape == (1, 3, -(-height // 32) * 32, padded)
    with Image.open(tmp_path / "out" / "a_semantic.png") as labels:
        assert labels.size == (width, height) and labels.mode == "L"
        expected = np.where(np.arange(width) < padded // 2, *synthetic.CATEGORY_IDS[:2])
        assert np.array_equal(np.array(labels), np.tile(expected, (height, 1)))
    entry = content(tmp_path / "out" / "a.json")
    assert entry["image"] == {"id": 1, "file_name": "a.png", "height": height, "width": width}
    areas = [info["area"] for info in entry["panoptic"]["segments_info"]]
    assert areas == [area for area in (height * min(width, padded // 2), height * (width - padded // 2)) if area > 0]


def test_real_model_takes_one_row(tmp_path, model):
    run(model, [picture(tmp_path / "a.png", 1, 40)], tmp_path / "out")
    assert Image.open(tmp_path / "out" / "a_panoptic.png").size == (40, 1)


def test_protocol_size_or_the_image_s_own(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "inference_rules", lambda exp: {SMALL: InferenceRules(80, 100)}[exp])
    model, image = LeftHalf(), picture(tmp_path / "a.png", 40, 60)
    run(model, [image], tmp_path / "out", native_size=False)
    run(model, [image], tmp_path / "out", native_size=True)
    resized, native = (batch[0].abs().sum(0) > 0 for batch in model.inputs)
    assert resized.shape == (96, 128) and native.shape == (64, 64)
    # 67 x 100 (the longer side is the limit), the rest is zero
    assert resized[:67, :100].float().mean() > 0.99 and not resized[67:].any() and not resized[:, 100:].any()
    assert content(tmp_path / "out" / "a.json")["image"]["width"] == 60


def test_result_of_an_image_depends_on_no_other(tmp_path, model):
    images = [picture(tmp_path / "12.png"), picture(tmp_path / "4.png", 33, 64)]
    assert [done.image for done in run(model, images, tmp_path / "both", raw=True)] == images
    run(model, images[1:], tmp_path / "one", raw=True)
    for path in (tmp_path / "one").glob("4*"):
        assert path.read_bytes() == (tmp_path / "both" / path.name).read_bytes(), path.name
    results = content(tmp_path / "both" / "instances.json")
    assert [r for r in results if r["image_id"] == 4] == content(tmp_path / "one" / "instances.json")


@pytest.mark.parametrize(
    ("dataset", "suffixes", "value"),
    [("coco_instance", ["_instances.png"], 1), ("ade20k", ["_semantic.png"], 1), ("cityscapes", ["_semantic.png"], 7)],
)
def test_tasks_with_one_kind_of_result(tmp_path, dataset, suffixes, value):
    exp = experiment("mask2former", "r50", dataset, "paper")
    model = LeftHalf({"coco_instance": 80, "ade20k": 150, "cityscapes": 19}[dataset])
    run(model, [picture(tmp_path / "a.png", 32, 64)], tmp_path / "out", exp)
    collected = {"instances.json"} if dataset == "coco_instance" else set()
    names = {"a" + suffix for suffix in [*suffixes, "_overlay.jpg", ".json"]} | collected
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    labels = np.array(Image.open(tmp_path / "out" / f"a{suffixes[0]}"))
    assert labels.dtype == np.uint8 and (labels[:, :32] == value).all() and (labels[:, 32:] == value + 1).all()


def test_image_ids():
    def ids(*names):
        return image_ids([Path(name) for name in names])

    assert ids("d/000000039769.jpg", "785.png") == [39769, 785]
    assert ids("7.jpg", "cat.jpg", "9.jpg") == [1, 2, 3]
    assert ids("7.jpg", "007.jpg") == [1, 2], "one number twice"
    assert ids("²" + ".jpg", "8.jpg") == [1, 2] == ids("9" * 30 + ".jpg", "8.jpg")


# The threshold


class Unsure(LeftHalf):
    """As `LeftHalf`, with class probabilities of 0.6 (left) and 0.3 beside "no object"; `logits` of its masks: 9."""

    def forward(self, images):
        found = super().forward(images)
        probabilities = torch.full((1, 2, self.num_classes + 1), 1e-9)
        probabilities[0, 0, 0], probabilities[0, 1, 1] = 0.6, 0.3
        probabilities[..., -1] = 1 - probabilities[..., :-1].sum(-1)
        return MaskPrediction(probabilities.log(), found.mask_logits)


@pytest.mark.parametrize(
    ("threshold", "found", "scores"),
    [
        (None, "0 segments: best score 0.60, threshold 0.8", []),
        (0.61, "0 segments: best score 0.60, threshold 0.61", []),
        (0.59, "1 segments", [0.6]),
        (0.0, "1 segments", [0.6]),  # at best "no object" is no segment, whatever the threshold
    ],
)
def test_threshold_of_segments(tmp_path, threshold, found, scores):
    (done,) = run(Unsure(), [picture(tmp_path / "a.png", 32, 64)], tmp_path / "out", threshold=threshold)
    assert done.found == found
    segments = content(tmp_path / "out" / "a.json")["panoptic"]["segments_info"]
    assert [segment["score"] for segment in segments] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize(
    ("threshold", "found"),
    [(None, "1 instances"), (0.61, "0 instances: best score 0.60, threshold 0.61"), (0.2, "2 instances")],
)
def test_threshold_of_instances(tmp_path, threshold, found):
    exp = experiment("mask2former", "r50", "coco_instance", "paper")
    (done,) = run(Unsure(80), [picture(tmp_path / "a.png", 32, 64)], tmp_path / "out", exp, threshold=threshold)
    assert done.found == found
    shown = np.unique(np.array(Image.open(tmp_path / "out" / "a_instances.png")))
    assert np.count_nonzero(shown) == int(found[0])
    scores = [entry["score"] for entry in content(tmp_path / "out" / "instances.json")]
    assert scores[:2] == pytest.approx([0.6, 0.3], abs=5e-3), "the official file holds all, whatever is shown"


def test_nothing_found_although_sure(tmp_path):
    class Nowhere(LeftHalf):
        def forward(self, images):
            found = super().forward(images)
            return MaskPrediction(found.class_logits, found.mask_logits * 0 - 9)

    (done,) = run(Nowhere(), [picture(tmp_path / "a.png")], tmp_path / "out")
    assert done.found.startswith("0 segments: best score 1.00, threshold 0.8, but most of its mask")


def test_threshold_that_means_nothing(tmp_path):
    image, model = picture(tmp_path / "a.png"), LeftHalf(150)
    for wrong in (-0.1, 1.5, float("nan")):
        refused("--threshold", "0 to 1", call=lambda wrong=wrong: run(model, [image], tmp_path / "o", threshold=wrong))
    exp = experiment("mask2former", "r50", "ade20k", "paper")
    refused("--threshold", "ade20k", call=lambda: run(model, [image], tmp_path / "o", exp, threshold=0.5))
    assert not model.inputs and not (tmp_path / "o").exists()


# Which images


def test_folders_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    for name in ("a.png", "b/2.JPG", "b/1.jpeg", "b/.hidden.png", "b/notes.txt", "[1].png", "1.png"):
        (tmp_path / name).touch()

    def found(*names):
        return [str(path) for path in find_images([Path(name) for name in names])]

    assert found("a.png", "b") == ["a.png", "b/1.jpeg", "b/2.JPG"]
    assert found("b/*.JPG") == ["b/2.JPG"] and found("**/*.j*", "a.png") == ["b/1.jpeg", "a.png"]
    assert found("[1].png") == ["[1].png"], "a file of that name is no pattern"
    assert found("missing.png") == ["missing.png"], "refused when it is opened"
    (tmp_path / "empty").mkdir()
    refused("empty", call=lambda: found("empty"))
    refused("*.webp", call=lambda: found("*.webp"))


# What is already there


def test_results_are_replaced_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.json", "panoptic.json", "a.npz", "b.json", "notes.txt"):
        (out / name).write_text("old")  # a.npz is not asked for
    run(LeftHalf(), [picture(tmp_path / "a.png")], out)
    assert content(out / "a.json") and content(out / "panoptic.json")
    assert [(out / name).read_text() for name in ("a.npz", "b.json", "notes.txt")] == ["old"] * 3


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(LeftHalf(), [picture(tmp_path / "a.png")], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(path, data):
        if isinstance(data, bytes):
            with open(path, "wb") as file:
                file.write(data[:3])
        raise OSError(28, "No space left on device")

    for owner, name in ((Path, "write_bytes"), (files.os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            refused(out, "No space left", call=lambda: run(LeftHalf(), [tmp_path / "a.png"], out))
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_image_that_breaks_on_the_way_keeps_what_is_done(tmp_path):
    images = [picture(tmp_path / f"{name}.png") for name in (1, 2, 3)]
    images[1].write_bytes(images[1].read_bytes()[:-2000])  # the header is whole
    refused(images[1], "cannot be read", call=lambda: run(LeftHalf(), images, tmp_path / "out"))
    assert content(tmp_path / "out" / "1.json") and not list((tmp_path / "out").glob("[23]*"))
    assert [image["id"] for image in content(tmp_path / "out" / "panoptic.json")["images"]] == [1]
    refused(images[1], call=lambda: run(LeftHalf(), images[1:], tmp_path / "out"))
    assert len(content(tmp_path / "out" / "panoptic.json")["images"]) == 1, "nothing done, nothing replaced"


def test_too_little_memory_is_one_line_and_a_defect_is_not(tmp_path):
    class Failing(LeftHalf):
        def forward(self, images):
            raise RuntimeError(self.message)

    model, image = Failing(), picture(tmp_path / "a.png")
    model.message = "CUDA out of memory.\nTried to allocate 2 GiB"
    refused(image, "memory", call=lambda: run(model, [image], tmp_path / "out"))
    model.message = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match="illegal"):
        run(model, [image], tmp_path / "out")


def test_damaged_weights_are_one_line(tmp_path, model):
    model.eval().requires_grad_(False)
    next(model.parameters()).fill_(float("nan"))
    image = picture(tmp_path / "a.png")
    refused(image, "weights", call=lambda: run(model, [image], tmp_path / "out"))


# Reading images


def refused(*words, call):
    with pytest.raises(BenchError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message and all(str(word) in message for word in words), message


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "PA", "CMYK", "1", "I;16"])
def test_colour_modes(tmp_path, mode):
    values = np.array([[0, 64, 128, 192, 255]], np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(np.repeat(values[..., None], 3, 2)).convert(mode.replace("PA", "P"))
    image.save(path := tmp_path / "a.tif", "TIFF")
    expected = [0, 0, 255, 255, 255] if mode == "1" else values[0]
    pixels = read_image(path)
    assert pixels.shape == (1, 5, 3) and pixels.dtype == np.uint8
    if mode != "1":  # dithered
        assert np.abs(pixels[0].astype(int) - np.asarray(expected)[:, None]).max() <= 26
    assert set(pixels[0, [0, -1]].flatten().tolist()) == {0, 255}


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(tmp_path, kind):
    Image.new("RGB", (5, 4), (200, 100, 50)).save(path := tmp_path / "a.dat", kind)
    assert np.abs(read_image(path).astype(int) - (200, 100, 50)).max() < 8


def test_sixteen_bit_png_is_scaled(tmp_path):
    Image.fromarray(np.array([[0, 255, 257, 30000, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 1].tolist() == [0, 1, 1, 117, 255]


def test_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.png", 20, 50)
    Image.open(tmp_path / "a.png").save(tmp_path / "b.png", exif=exif)
    run(LeftHalf(), [tmp_path / "b.png"], tmp_path / "out")
    assert content(tmp_path / "out" / "b.json")["image"]["height"] == 50
    assert Image.open(tmp_path / "out" / "b_panoptic.png").size == (20, 50)


def huge_png(path: Path, side: int) -> None:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


BAD_FILES = {
    "missing": (lambda path: None, "missing"),
    "folder": (lambda path: path.mkdir(), "folder"),
    "text": (lambda path: path.write_text("no image"), "no image"),
    "empty": (lambda path: path.touch(), "no image"),
    "program": (lambda path: Image.new("RGB", (4, 4)).save(path, "EPS"), "no image"),
    "cut header": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00"), ""),
    "bomb": (lambda path: huge_png(path, 60_000), "bomb"),
    "half a bomb": (lambda path: huge_png(path, 10_000), "bomb"),  # Pillow warns only
    "float": (lambda path: Image.fromarray(np.zeros((3, 3), np.float32)).save(path, "TIFF"), "32 bits"),
    "int": (lambda path: Image.fromarray(np.zeros((3, 3), np.int32)).save(path, "TIFF"), "32 bits"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_named_before_the_model_runs(tmp_path, case):
    make, word = BAD_FILES[case]
    make(tmp_path / "bad.png")
    model, images = LeftHalf(), [picture(tmp_path / "a.png"), tmp_path / "bad.png"]
    refused(images[1], word, call=lambda: run(model, images, tmp_path / "out"))
    assert not model.inputs and not (tmp_path / "out").exists()


# Names


def test_two_images_of_one_name(tmp_path):
    (tmp_path / "b").mkdir()
    images = [picture(tmp_path / "x.png"), picture(tmp_path / "b" / "x.jpg")]
    refused(*images, call=lambda: check_images(images, tmp_path / "out", "semantic", False))
    refused(images[0], call=lambda: check_images(images[:1] * 2, tmp_path / "out", "semantic", False))


def test_name_of_the_collected_file(tmp_path):
    images = [picture(tmp_path / "panoptic.png")]
    refused(images[0], "panoptic.json", call=lambda: check_images(images, tmp_path / "out", "panoptic", False))
    check_images(images, tmp_path / "out", "semantic", False)


def test_no_input_is_replaced(tmp_path, monkeypatch):
    images = [picture(tmp_path / "a.png"), picture(tmp_path / "a_panoptic.png")]
    monkeypatch.chdir(tmp_path)
    refused(*images, call=lambda: check_images(images, Path("."), "panoptic", False))
    check_images(images, Path("."), "semantic", False)
    check_images(images[:1], tmp_path, "panoptic", True)


def test_nowhere_to_write_and_nothing_to_read(tmp_path):
    image = picture(tmp_path / "a.png")
    refused(image, "not a folder", call=lambda: run(LeftHalf(), [image], image))
    model = LeftHalf()
    refused(image, call=lambda: run(model, [image], image / "below"))
    assert not model.inputs
    refused("no images", call=lambda: run(LeftHalf(), [], tmp_path))
