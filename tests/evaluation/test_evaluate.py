"""An evaluation shared by processes (threads here), stopped and continued with others: always the same metrics."""

import json

import pytest
import torch

from bench.data.registry import open_split
from bench.evaluation.evaluate import clear, evaluate_shared
from bench.evaluation.prediction_writer import PredictionWriter
from bench.evaluation.saved_predictions import SavedPredictions
from bench.training.distributed import Stopped, World
from tests.conftest import few_scenes
from tests.evaluation.noisy import results_from
from tests.training.test_batch_norm import in_threads

IDENTITY = {"model": "one", "version": 1}
ALONE = World(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_split("synthetic_panoptic", "val", few_scenes(tmp_path_factory, train=1, val=7))


@pytest.fixture
def predict(dataset):
    """Noisy truth, the same for an image whoever asks; counts who was asked for."""
    asked = []

    def predict(index):
        asked.append(index)
        sample = dataset[index]
        generator = torch.Generator().manual_seed(index)
        masks = 8 * sample.masks.float() - 4 + 4 * torch.randn(sample.masks.shape, generator=generator)
        classes = torch.zeros(len(sample.labels), len(dataset.categories) + 1)
        classes[torch.arange(len(sample.labels)), sample.labels] = 6 + torch.rand(
            len(sample.labels), generator=generator
        )
        return results_from(dataset, sample.image_id, classes, masks)

    predict.asked = asked
    return predict


@pytest.fixture
def expected(dataset, predict, tmp_path):
    (tmp_path / "expected").mkdir()
    values = evaluate_shared(predict, dataset, tmp_path / "expected", IDENTITY, ALONE).values
    assert 0 < values["PQ"] < 100
    predict.asked.clear()
    return values


@pytest.mark.parametrize("size", [2, 3, 9])
def test_metrics_do_not_depend_on_the_number_of_processes(dataset, predict, tmp_path, expected, size):
    values, *others = in_threads(size, lambda world: evaluate_shared(predict, dataset, tmp_path, IDENTITY, world))
    assert values[0] == expected and others == [None] * (size - 1)
    assert sorted(predict.asked) == list(range(7))


def stopping(predict, dataset, folder, world, after):
    """Stops each process after so many images."""
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > after

    with pytest.raises(Stopped):
        evaluate_shared(predict, dataset, folder, IDENTITY, world, stop=stop)


def test_goes_on_with_another_number_of_processes(dataset, predict, tmp_path, expected):
    in_threads(3, lambda world: stopping(predict, dataset, tmp_path, world, 1))
    assert sorted(predict.asked) == [0, 1, 2]
    in_threads(2, lambda world: stopping(predict, dataset, tmp_path, world, 1))
    assert sorted(predict.asked) == [0, 1, 2, 3, 4]
    with (tmp_path / "images-2.jsonl").open("a") as file:
        file.write('{"half a line')  # of a process that was killed
    seen = []
    values, _, seconds = evaluate_shared(
        predict, dataset, tmp_path, IDENTITY, ALONE, lambda done, total: seen.append((done, total))
    )
    assert values == expected and sorted(predict.asked) == list(range(7))
    assert seen == [(5, 7), (6, 7), (7, 7)] and seconds > 0


def test_logs_of_another_model_are_not_taken(dataset, predict, tmp_path, expected):
    in_threads(2, lambda world: evaluate_shared(predict, dataset, tmp_path, {**IDENTITY, "model": "two"}, world))
    predict.asked.clear()
    assert evaluate_shared(predict, dataset, tmp_path, IDENTITY, ALONE)[0] == expected
    assert len(predict.asked) == 7
    clear(tmp_path)
    assert list(tmp_path.glob("images-*")) == []


def test_predictions_are_saved_by_all(dataset, predict, tmp_path, expected):
    facts = {"dataset": "synthetic_panoptic", "split": "val", "model": "one", "post_processing": "x"}
    (tmp_path / "logs").mkdir()

    def writer():
        return PredictionWriter(tmp_path / "saved", dataset, facts)

    writer()

    def work(world):
        return evaluate_shared(predict, dataset, tmp_path / "logs", IDENTITY, world, predictions=writer())

    assert in_threads(2, work)[0][0] == expected
    saved = SavedPredictions(tmp_path / "saved", dataset)
    assert all(saved.of(image).image_id == image["id"] for image in dataset.images)
    assert len(json.loads((tmp_path / "saved" / "panoptic.json").read_text())["annotations"]) == 7
