"""`Recipe`: how an experiment is trained and tested, one for a data set and scale, varied only as the paper does."""

from dataclasses import MISSING, asdict, dataclass, fields, replace

from bench.errors import BenchError
from bench.experiments.backbones import get_backbone
from bench.experiments.datasets import DATASETS, get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.hashing import content_hash
from bench.experiments.methods import get_method
from bench.experiments.protocols import FROZEN, WHOLE_BATCH, Values, variations

CHOICES = {
    "precision": ("float32", "bf16", "fp16"),
    "optimiser": ("adamw", "sgd"),
    "schedule": ("step", "poly"),
    "resize_mode": ("scale", "shorter_side"),
    "batch_norm": (FROZEN, WHOLE_BATCH),
}


@dataclass(frozen=True)
class Recipe:
    """Training and testing of one data set at one scale (section 3.1 and Appendix D of the paper).

    At small scale every method gets the same recipe. At paper scale HCFormer+ gets the paper's doubled iterations, on
    COCO Swin-L too (Appendix D); MaskFormer and Mask2Former get HCFormer's (matched protocol), not their own papers'.

    Sizes are pixels, (height, width). `schedule` "step": the learning rate is multiplied by `step_factor` at each of
    `step_fractions` of `iterations`; "poly": by (1 - iteration / iterations) ** `poly_power`. `scale_range` is the
    range of random resizing before the crop: times the size that fits into the crop (`resize_mode` "scale") or, with
    "shorter_side", of the shorter side in units of the crop's shorter side. `scale_steps`: so many values of that
    range, equally far apart, are drawn from (0: all of it); the shorter side is then whole pixels and the longer one
    at most `longest_side`. `diagonal_crop`: one random number places the crop in both directions, else two do.
    `padding_value` (0 to 255) fills a crop beyond the image; None: the mean colour. `keep_emptied`: segments without a
    pixel in the crop are targets with empty masks, else none. `class_loss_images`: images whose class losses are
    normalised together, whatever computes them; None: all of the batch. `colour_jitter` is SSD's. `batch_norm`:
    batch norms are "frozen", or trained with statistics of all images of the "whole batch", however many processes
    share it. `drop_path` is the largest rate of stochastic depth in the backbone. At test time the shorter side becomes
    `test_shorter_side` and the longer at most `test_longer_side`; None keeps the size.
    Raises ValueError for an unknown precision, optimiser, schedule, resize mode or batch norm, for steps without
    "shorter_side", and where `class_loss_images` does not divide `batch_size`.
    """

    iterations: int
    batch_size: int
    learning_rate: float
    backbone_multiplier: float
    step_fractions: tuple[float, ...]
    num_points: int
    crop_size: tuple[int, int]
    scale_range: tuple[float, float]
    test_shorter_side: int | None
    test_longer_side: int | None
    precision: str
    offset_multiplier: float = 0.1  # of the zero-initialised offset convolutions of DCNv2, at every scale
    weight_decay: float = 0.05
    clip_norm: float = 0.01
    step_factor: float = 0.1
    warmup_iterations: int = 10
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    scale_regularisation: float = 0.1
    pretrained: bool = False  # start from the backbone's ImageNet weights
    auxiliary_weight: float = 0.0  # of the loss of an auxiliary head; only per-pixel methods have one, 0: none
    optimiser: str = "adamw"
    momentum: float = 0.9  # of SGD
    schedule: str = "step"
    poly_power: float = 0.9
    resize_mode: str = "scale"
    scale_steps: int = 0
    longest_side: int | None = None
    diagonal_crop: bool = False
    padding_value: int | None = None
    keep_emptied: bool = False
    class_loss_images: int | None = None
    batch_norm: str = WHOLE_BATCH
    colour_jitter: bool = False
    drop_path: float = 0.0
    activation_checkpointing: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} of a recipe is one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.scale_steps and (self.scale_steps < 2 or self.resize_mode != "shorter_side"):
            raise ValueError("scale_steps of a recipe is 0, or 2 or more with the resize mode 'shorter_side'")
        if self.class_loss_images and self.batch_size % self.class_loss_images:
            raise ValueError(f"class_loss_images {self.class_loss_images} does not divide a batch of {self.batch_size}")

    @property
    def hash(self) -> str:
        """Content hash of everything that decides one run; the list of seeds does not."""
        return recipe_hash(self.to_dict())

    def to_dict(self) -> dict:
        """Plain JSON values: tuples as lists."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def recipe_hash(values: dict) -> str:
    """`Recipe.hash` of a recipe given as plain values, also one of an earlier version with other fields.

    A field at its default does not count: a recipe from before that field existed is the same recipe.
    """
    kept = {name: value for name, value in values.items() if name != "seeds"}
    defaults = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    return content_hash({name: v for name, v in kept.items() if name not in defaults or v != defaults[name]})


RECIPES: dict[tuple[str, str], Recipe] = {
    (dataset.name, scale): Recipe(**{name: entry.value for name, entry in values.items()})
    for dataset in DATASETS.values()
    for scale, values in dataset.recipes.items()
}


def recipe_for(experiment: Experiment) -> Recipe:
    """The recipe of an experiment: that of its data set and scale, at paper scale varied as the paper does.

    Raises BenchError where none is defined.
    """
    if not get_method(experiment.method).trained:
        raise BenchError(f"{experiment.method} is not trained here: there is no recipe for it, choose another row")
    pair = (experiment.dataset, experiment.scale)
    if pair not in RECIPES:
        known = "; ".join(f"{dataset} at scale {scale}" for dataset, scale in sorted(RECIPES))
        raise BenchError(f"no recipe for {pair[0]} at scale {pair[1]}: there are {known}")
    recipe = RECIPES[pair]
    return replace(recipe, **{name: entry.value for name, entry in _varied(experiment).items()})


def sources_for(experiment: Experiment) -> dict[str, str]:
    """Where each value of `recipe_for(experiment)` comes from, by field; BenchError where there is no recipe."""
    recipe_for(experiment)
    values = get_dataset(experiment.dataset).recipes[experiment.scale] | _varied(experiment)
    return {name: entry.source for name, entry in values.items()}


def _varied(experiment: Experiment) -> Values:
    method, backbone = get_method(experiment.method), get_backbone(experiment.backbone)
    return variations(get_dataset(experiment.dataset), experiment.scale, method, backbone)
