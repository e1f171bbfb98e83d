"""The data sets. A new one is one `Dataset(...)` here, its classes in `bench/data/categories/`, and a reader in
`bench/data/` if its layout is new."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.errors import unknown_name
from bench.experiments import protocols
from bench.experiments.protocols import Values

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class CountedImages:
    """Images on which FLOPs are counted at paper scale, described by `text`.

    sizes: name of a list of image sizes, resized for the test and padded. original: else the size (H, W) of the one
    image, which is counted as it is or, `cropped`, as one crop of the recipe's size.
    """

    text: str
    sizes: str | None = None
    original: Size | None = None
    cropped: bool = False


@dataclass(frozen=True)
class Dataset:
    """A data set as declared facts, which do not need its files.

    label: what people call it. task: what is trained and evaluated, "panoptic", "instance" or "semantic" (where all
    classes count as stuff). reader: "module:function"; reader(root, split, complete=True) opens a split. categories:
    the list of its classes. images: official number of images a split, where there is one. test_split: the one that is
    evaluated, if that is not `val_split`. marker: path below the data set's folder by which that is known, {} being a
    split. folders: its usual names beside other data sets'. generated: written to the cache when it is missing, instead
    of asked for. prepared: folder of the label images that `bench data prepare` makes, {} being a split; None: it needs
    none. counted: on what FLOPs are counted; None: they are not. missing_counts: a class that is predicted but nowhere
    true has IoU 0 instead of none. small_queries: queries of small models. recipes: values of its recipe by scale, each
    with its source; without one nothing is trained on it. recipe_of_pixels: what is different for per-pixel methods at
    paper scale.
    """

    name: str
    label: str
    task: str
    num_things: int
    num_stuff: int
    train_split: str
    val_split: str
    reader: str
    marker: str
    categories: str
    images: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    test_split: str | None = None
    generated: bool = False
    prepared: str | None = None
    counted: CountedImages | None = None
    missing_counts: bool = False
    small_queries: int = 20
    recipes: Mapping[str, Values] = field(default_factory=dict)
    recipe_of_pixels: Values = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        return self.num_things + self.num_stuff

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits with annotations."""
        return (self.train_split, self.val_split, *([self.test_split] if self.test_split else []))

    @property
    def eval_split(self) -> str:
        """The split that results are reported on."""
        return self.test_split or self.val_split


_PANOPTIC: dict[str, Any] = {"reader": "bench.data.coco:CocoPanoptic", "marker": "annotations/panoptic_{}.json"}
_SEMANTIC = "bench.data.semantic:"
_COCO: dict[str, Any] = {
    "images": {"train2017": 118_287, "val2017": 5000},
    "folders": ("coco",),
    "categories": "coco_panoptic",
    "counted": CountedImages("mean over the first 100 images of COCO val2017", sizes="coco_val2017_first100"),
}
_ON_ADE20K = CountedImages(
    "one crop of 512x512 (640x640 with Swin-L and MiT-B5) of an image of 512x683", original=(512, 683), cropped=True
)  # a common size of ADE20K's images
_ON_CITYSCAPES = CountedImages("one image of 1024x2048", original=(1024, 2048))  # the size of all of them
_SYNTHETIC = {"small": protocols.SYNTHETIC}

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset("coco_panoptic", "COCO", "panoptic", 80, 53, "train2017", "val2017", **_PANOPTIC, **_COCO,
                prepared="panoptic_semseg_{}", recipes={"paper": protocols.COCO}),
        Dataset("coco_instance", "COCO", "instance", 80, 0, "train2017", "val2017",
                "bench.data.coco_instance:CocoInstance", "annotations/instances_{}.json", **_COCO,
                recipes={"paper": protocols.COCO_INSTANCE}),
        Dataset("ade20k", "ADE20K", "semantic", 0, 150, "training", "validation", _SEMANTIC + "ade20k", "images/{}",
                "ade20k", {"training": 20_210, "validation": 2000}, ("ade20k", "ADEChallengeData2016"),
                prepared="annotations_detectron2/{}", counted=_ON_ADE20K, recipes={"paper": protocols.ADE20K},
                recipe_of_pixels=protocols.PIXELS_ON_ADE20K),
        Dataset("cityscapes", "Cityscapes", "semantic", 0, 19, "train", "val", _SEMANTIC + "cityscapes",
                "leftImg8bit/{}", "cityscapes", {"train": 2975, "val": 500}, ("cityscapes",), prepared="gtFine/{}",
                counted=_ON_CITYSCAPES, missing_counts=True, recipes={"paper": protocols.CITYSCAPES},
                recipe_of_pixels=protocols.PIXELS_ON_CITYSCAPES),
        Dataset("camvid", "CamVid", "semantic", 0, 11, "train", "val", _SEMANTIC + "camvid", "images/{}", "camvid",
                {"train": 367, "val": 101, "test": 233}, ("camvid",), test_split="test",
                recipes={"small": protocols.CAMVID}),
        # An image has some thirty nuclei, a few have over a hundred.
        Dataset("nuclei", "nuclei", "panoptic", 1, 1, "train", "val", **_PANOPTIC, categories="nuclei",
                images={"train": 357, "val": 88}, folders=("nuclei",), prepared="panoptic_semseg_{}",
                small_queries=100, recipes={"small": protocols.NUCLEI}),
        Dataset("synthetic_semantic", "synthetic", "semantic", 0, 10, "train", "val",
                "bench.data.merged:MergedPanoptic", _PANOPTIC["marker"], "synthetic", generated=True,
                recipes=_SYNTHETIC),
        Dataset("synthetic_panoptic", "synthetic", "panoptic", 6, 4, "train", "val", **_PANOPTIC,
                categories="synthetic", generated=True, recipes=_SYNTHETIC),
    )
}  # fmt: skip


def get_dataset(name: str) -> Dataset:
    """Raises BenchError for an unknown name, naming the nearest known one."""
    if name not in DATASETS:
        raise unknown_name("data set", str(name), DATASETS)
    return DATASETS[name]
