"""Images a second and core of the training pipelines at paper scale, on real photographs; not collected by default.

    pytest tests/benchmarks/test_pipeline.py -s --benchmark-columns=min,median,rounds

Times are of the CPU, so that other work on the machine does not count; one round reads, augments and normalises
`IMAGES` images. With -s the profile is printed: where the time of an image goes, in milliseconds.
"""

import cProfile
import pstats
import time

import pytest
import torch
from PIL import Image

from bench.data.registry import open_split
from bench.data.transforms import augment, preprocess
from bench.experiments import RECIPES

IMAGES = 40
STAGES = {  # of an image: functions (file, name) of which the time is
    "decode photograph": [("images.py", "read_image")],
    "read labels": [("coco.py", "__getitem__"), ("semantic.py", "__getitem__")],
    "resize": [("transforms.py", "_resized")],
    "masks": [("transforms.py", "_sampled"), ("transforms.py", "_source_pixels")],
    "colours": [("colour.py", "jitter_colours")],
    "pad": [("transforms.py", "_padded")],
    "normalise": [("transforms.py", "preprocess")],
}


@pytest.fixture
def single_core():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def roots(shared, tmp_path):
    """Folder by data set: the COCO photographs as they are, and with their classes in ADE20K's layout."""
    coco = shared / "data" / "coco"
    panoptic, ade20k = open_split("coco_panoptic", "val", coco), tmp_path / "ade20k"
    for folder in ("images", "annotations"):
        (ade20k / folder / "validation").mkdir(parents=True)
    for index, image in enumerate(panoptic.images):
        photo = panoptic.image_dir / image["file_name"]
        (ade20k / "images" / "validation" / photo.name).write_bytes(photo.read_bytes())
        labels = panoptic.label_map(index) + 1  # 133 classes from 1 on; 255 becomes 0
        Image.fromarray(labels).save(ade20k / "annotations" / "validation" / f"{photo.stem}.png")
    return {"coco_panoptic": coco, "ade20k": ade20k}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", ["coco_panoptic", "ade20k"])
def test_training_pipeline(benchmark, single_core, roots, name):
    dataset, recipe = open_split(name, "val", roots[name]), RECIPES[name, "paper"]

    def read():
        generator = torch.Generator().manual_seed(0)
        for position in range(IMAGES):
            preprocess([augment(dataset[position % len(dataset)], generator, recipe).image])

    benchmark.group = "training pipeline"
    benchmark.pedantic(read, rounds=5, warmup_rounds=1)
    profile = _profile(read)
    benchmark.extra_info |= {"images_per_second": IMAGES / benchmark.stats.stats.median, "profile_ms": profile}
    print(f"\n{name}: {benchmark.extra_info['images_per_second']:.1f} images/s a core")
    print("  ".join(f"{stage} {milliseconds:.1f}" for stage, milliseconds in profile.items()))


def _profile(read) -> dict[str, float]:
    """Milliseconds of an image in each stage."""
    profile = cProfile.Profile(time.process_time)
    profile.runcall(read)
    seconds: dict[tuple[str, str], float] = {}
    for (file, _, function), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():
        key = (file.rsplit("/", 1)[-1], function)
        seconds[key] = seconds.get(key, 0.0) + cumulative
    stages = {stage: 1000 * sum(seconds.get(f, 0.0) for f in names) / IMAGES for stage, names in STAGES.items()}
    stages["read labels"] -= stages["decode photograph"]
    return {stage: round(milliseconds, 2) for stage, milliseconds in stages.items()}
