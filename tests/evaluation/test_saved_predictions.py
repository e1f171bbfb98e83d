"""Saved predictions: what official evaluators make of the files, the same numbers again, and foreign files."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from panopticapi.evaluation import pq_compute_single_core
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench.data.registry import open_split
from bench.data.synthesis.layouts import synthesize
from bench.errors import BenchError
from bench.evaluation.evaluate import make_evaluator
from bench.evaluation.prediction_writer import PredictionWriter
from bench.evaluation.saved_predictions import SavedPredictions
from tests.evaluation.noisy import noisy_logits, results_from
from tests.evaluation.test_semantic import official_cityscapes

NAMES = ("coco_panoptic", "coco_instance", "ade20k", "cityscapes")
COUNT = 6


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Folder of each data set: among the images one without labels, a crowd, odd colour modes, a turned one."""
    folder = tmp_path_factory.mktemp("data")
    for name in NAMES[1:]:
        synthesize(name, folder / name, images=COUNT)
    return {name: folder / ("coco_instance" if name == "coco_panoptic" else name) for name in NAMES}


def identity(name: str, dataset) -> dict[str, str]:
    return {"dataset": name, "split": dataset.split, "model": "a model", "post_processing": "version 0"}


def predict(dataset, index: int):
    logits, masks, sizes = noisy_logits(dataset[index], len(dataset.categories), index)
    return results_from(dataset, dataset.images[index]["id"], logits, masks, sizes)


@pytest.fixture(scope="module")
def saved(roots, tmp_path_factory):
    """name -> (data set, folder of predictions, metrics as evaluated)."""
    everything = {}
    for name in NAMES:
        dataset, folder = open_split(name, "val", roots[name]), tmp_path_factory.mktemp("predictions") / name
        evaluator, writer = make_evaluator(dataset), PredictionWriter(folder, dataset, identity(name, dataset))
        for index in range(COUNT):
            prediction = predict(dataset, index)
            writer.write(prediction)
            evaluator.take(evaluator.measure(prediction))
        writer.finish()
        everything[name] = dataset, folder, evaluator.compute()
    return everything


def rescore(dataset, folder) -> dict[str, float]:
    evaluator, predictions = make_evaluator(dataset), SavedPredictions(folder, dataset)
    for image in reversed(dataset.images):
        evaluator.take(evaluator.measure(predictions.of(image)))
    return evaluator.compute()


@pytest.mark.parametrize("name", NAMES)
def test_saved_predictions_score_exactly_the_same(saved, name):
    dataset, folder, metrics = saved[name]
    assert rescore(dataset, folder) == pytest.approx(metrics, abs=0, nan_ok=True)
    assert sum(0 < value < 100 for value in metrics.values()) >= 2, metrics
    assert json.loads((folder / "predictions.json").read_bytes())["model"] == "a model"
    assert not (folder / "parts").exists()


def test_panopticapi_reads_the_panoptic_results(saved):
    dataset, folder, metrics = saved["coco_panoptic"]
    truth = json.loads(dataset.annotation_file.read_bytes())
    predicted = {a["image_id"]: a for a in json.loads((folder / "panoptic.json").read_bytes())["annotations"]}
    pairs = [(annotation, predicted[annotation["image_id"]]) for annotation in truth["annotations"]]
    categories = {category["id"]: category for category in truth["categories"]}
    with contextlib.redirect_stdout(io.StringIO()):
        counts = pq_compute_single_core(0, pairs, str(dataset.panoptic_dir), str(folder / "panoptic"), categories)
    assert metrics["PQ"] == pytest.approx(100 * counts.pq_average(categories, None)[0]["pq"], abs=1e-6)


def test_pycocotools_reads_the_instance_results(saved):
    dataset, folder, metrics = saved["coco_instance"]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(dataset.annotation_file))
        evaluation = COCOeval(reference, reference.loadRes(str(folder / "instances.json")), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert metrics["AP"] == pytest.approx(100 * evaluation.stats[0], abs=1e-6) and metrics["AP"] > 0


def test_cityscapes_reads_the_semantic_results(tmp_path, saved):
    """Label ids, under the names that its evaluation looks for."""
    dataset, folder, metrics = saved["cityscapes"]
    ids = {category.id: index for index, category in enumerate(dataset.categories)}
    labels = []
    for index in range(COUNT):
        city, sequence, frame = dataset.files(index)[0].name.split("_")[:3]
        (path,) = (folder / "semantic").glob(f"{city}_{sequence}_{frame}*.png")
        labels.append(np.vectorize(ids.__getitem__)(np.asarray(Image.open(path))))
    assert metrics["mIoU"] == pytest.approx(official_cityscapes(tmp_path, dataset, labels), abs=1e-6)


def test_stopped_evaluation_goes_on_and_several_may_write(tmp_path, roots, saved):
    dataset, folder, _ = saved["coco_panoptic"]

    def writer():
        return PredictionWriter(tmp_path / "new", dataset, identity("coco_panoptic", dataset))

    first, ids = writer(), [image["id"] for image in dataset.images]
    for index in (3, 0):
        first.write(predict(dataset, index))
    again = writer()
    assert [again.has(id_) for id_ in ids] == [index in (0, 3) for index in range(COUNT)]
    with pytest.raises(BenchError, match=r"^(?!.*\n).*4 of 6 images are missing"):
        again.finish()
    with pytest.raises(BenchError, match="holds a part of the predictions"):
        SavedPredictions(tmp_path / "new", dataset)
    for index in (5, 2, 1, 4):
        (first, again)[index % 2].write(predict(dataset, index))
    first.finish()
    again.finish()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert (tmp_path / "new" / path.relative_to(folder)).read_bytes() == path.read_bytes(), path
    assert all(writer().has(id_) for id_ in ids)

    evaluated_again = writer()  # as after --force: everything is written once more
    for index in range(COUNT):
        evaluated_again.write(predict(dataset, index))
    evaluated_again.finish()
    assert rescore(dataset, tmp_path / "new") == rescore(dataset, folder)


def test_evaluation_killed_while_it_wrote_goes_on_to_its_end(tmp_path, roots, saved):
    dataset, folder, _ = saved["coco_panoptic"]
    writer = PredictionWriter(tmp_path / "new", dataset, identity("coco_panoptic", dataset))
    for place in ("", "parts", "panoptic", "semantic"):  # names as those of tempfile
        (tmp_path / "new" / place / ".000-x3k.tmp").write_text("half")
    for index in range(COUNT):
        writer.write(predict(dataset, index))
    writer.finish()

    def files(root):
        return sorted(path.relative_to(root) for path in root.rglob("*"))

    assert files(tmp_path / "new") == files(folder)


def test_folders_of_something_else_are_left_alone(tmp_path, saved):
    dataset, folder, _ = saved["ade20k"]
    before = (folder / "predictions.json").read_bytes()
    for name in ("split", "model", "post_processing", "dataset"):
        with pytest.raises(BenchError, match=r"^(?!.*\n).*something else.*give another folder"):
            PredictionWriter(folder, dataset, identity("ade20k", dataset) | {name: "other"})
    assert (folder / "predictions.json").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BenchError, match="is not empty and holds no predictions"):
        PredictionWriter(tmp_path, dataset, identity("ade20k", dataset))
    with pytest.raises(BenchError, match="holds semantic predictions, the data set is for panoptic"):
        SavedPredictions(folder, saved["coco_panoptic"][0])


def edit(change):
    """A damage to a JSON file: change(content) gives the new content."""
    return lambda path: path.write_text(json.dumps(change(json.loads(path.read_text()))))


def first(content, **values):
    """With other values in the first entry of a list, or of `annotations`."""
    entries = content if isinstance(content, list) else content["annotations"]
    entries[0] |= values
    return content


def first_segment(**values):
    def change(content):
        next(a for a in content["annotations"] if a["segments_info"])["segments_info"][0].update(values)
        return content

    return edit(change)


def png(pixels, mode=None):
    return lambda path: Image.fromarray(pixels, mode).save(path)


IMAGE = "000000000114.png"
DAMAGES = [
    ("predictions.json", lambda path: path.unlink(), "give the folder of saved predictions"),
    ("predictions.json", lambda path: path.write_text("{"), "not readable JSON"),
    ("predictions.json", lambda path: path.write_text("[" * 100_000), "not readable JSON"),
    ("predictions.json", lambda path: path.write_text('{"format": 2}'), "no known format"),
    ("predictions.json", edit(lambda facts: facts | {"model": 3}), "does not say what"),
    ("predictions.json", edit(lambda facts: facts | {"complete": False}), "a part of the predictions"),
    ("panoptic.json", lambda path: path.unlink(), "panoptic.json is not readable JSON"),
    ("panoptic.json", lambda path: path.write_text("[]"), "has no list 'annotations'"),
    ("panoptic.json", edit(lambda content: {"annotations": content["annotations"][1:]}), "lacks image"),
    ("panoptic.json", edit(lambda content: {"annotations": content["annotations"] * 2}), "no image id of its own"),
    ("panoptic.json", edit(lambda content: first(content, image_id=3)), "has image 3, which is not"),
    ("instances.json", edit(lambda content: first(content, image_id=3)), "has image 3, which is not"),
    ("panoptic.json", first_segment(category_id=9999), "category id 9999"),
    ("panoptic.json", first_segment(category_id=[]), "category id []"),
    ("panoptic.json", first_segment(id=-1), "no valid id"),
    ("panoptic.json", first_segment(id=4000), "other segments than each other"),
    ("panoptic.json", edit(lambda content: first(content, segments_info=None)), "no list of segments"),
    (f"panoptic/{IMAGE}", lambda path: path.unlink(), "is missing"),
    (f"panoptic/{IMAGE}", lambda path: path.write_bytes(path.read_bytes()[:100]), "cannot be read"),
    (f"panoptic/{IMAGE}", png(np.full((480, 640, 3), 9, np.uint8)), "other segments"),
    (f"semantic/{IMAGE}", png(np.full((480, 640), 255, np.uint8)), "no category id of the data set"),
    (f"semantic/{IMAGE}", png(np.ones((480, 640, 3), np.uint8)), "no PNG of category ids"),
    (f"semantic/{IMAGE}", png(np.ones((48, 64), np.uint8)), "differ in size"),
    (f"semantic/{IMAGE}", lambda path: path.write_bytes(b"GIF"), "no image of a known format"),
    ("instances.json", lambda path: path.write_text('{"a": 1}'), "no JSON list of COCO results"),
    ("instances.json", lambda path: path.write_text("[1]"), "has no image id"),
    ("instances.json", lambda path: path.unlink(), "instances.json is not readable JSON"),
    ("instances.json", lambda path: path.write_bytes(path.read_bytes()[:-5]), "instances.json is not readable JSON"),
    ("instances.json", lambda path: path.write_text("[" * 100_000), "instances.json is not readable JSON"),
    ("instances.json", edit(lambda content: first(content, score=10**400)), "no finite score"),
    ("instances.json", edit(lambda content: first(content, score="high")), "no finite score"),
    ("instances.json", edit(lambda content: first(content, score=float("nan"))), "no finite score"),
    ("instances.json", edit(lambda content: first(content, category_id=None)), "category id None"),
    ("instances.json", edit(lambda content: first(content, segmentation={"size": [9, 9], "counts": "1"})), "no run"),
    ("instances.json", edit(lambda content: first(content, segmentation=None)), "an instance of image"),
]


@pytest.mark.parametrize(("file", "damage", "words"), DAMAGES, ids=[f"{f}: {w}" for f, _, w in DAMAGES])
def test_damaged_files_are_said_in_one_line(tmp_path, saved, file, damage, words):
    dataset, folder, _ = saved["coco_panoptic"]
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy / file)
    with pytest.raises(BenchError) as error:
        rescore(dataset, copy)
    assert words in str(error.value) and "\n" not in str(error.value)
