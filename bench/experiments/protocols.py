"""The values of every recipe, each with its source: plain data, from which `bench.experiments.recipe` is filled.

A source is a section of the paper ("D.1": appendix D.1), a released configuration that made the paper's numbers, or
"ours: reason". Mask2Former's configurations count as the paper's, which follows them where it says nothing (section
3.1, appendix D).

Where paper and released code differ, the code that made the printed numbers counts, and the paper where a released file
plainly is not what was run. That is about HCFormer; the baselines get its protocol, whatever their own code says.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bench.experiments.backbones import Backbone
    from bench.experiments.datasets import Dataset
    from bench.experiments.methods import Method


class Value(NamedTuple):
    """A value of a recipe and where it comes from."""

    value: Any
    source: str


Values = dict[str, Value]

FOLLOWED = "Mask2Former's configuration"
FROZEN, WHOLE_BATCH = "frozen", "whole batch"  # of batch norms
UNUSED_MOMENTUM = Value(0.9, "not used: AdamW has none")
_NO_STEPS = "not used: scales are not in steps"

# Of every data set at paper scale.
_PAPER: Values = {
    "batch_size": Value(16, "paper D.1, D.2"),
    "optimiser": Value("adamw", "paper D.1, D.2"),
    "momentum": UNUSED_MOMENTUM,
    "learning_rate": Value(1e-4, "paper D.1, D.2"),
    "backbone_multiplier": Value(
        0.1, "paper D.1, D.2; clustering modules, scales and encoder: reference configuration"
    ),
    "offset_multiplier": Value(0.1, "reference configuration: DCNv2's offsets learn with the backbone"),
    "weight_decay": Value(0.05, f"paper D.1, D.2; 0 for norms, embeddings, relative position biases: {FOLLOWED}"),
    "clip_norm": Value(0.01, f"norm of the whole model's gradient: {FOLLOWED}"),
    "class_weight": Value(2.0, "paper 3.1"),
    "mask_weight": Value(5.0, "paper 3.1"),
    "dice_weight": Value(5.0, "paper 3.1"),
    "no_object_weight": Value(0.1, "reference configuration"),
    "auxiliary_weight": Value(0.0, "not used: no auxiliary head"),
    "scale_regularisation": Value(0.1, "paper 3.1; absolute value of the sum of the scales: reference configuration"),
    "num_points": Value(12_544, "reference configuration; paper 3.1: points as in Mask2Former"),
    "class_loss_images": Value(8, "reference configuration: one GPU's images; paper D: 16 on two GPUs"),
    "padding_value": Value(128, f"grey: {FOLLOWED}"),
    "precision": Value("bf16", f"mixed precision: {FOLLOWED}; bf16 is ours: it needs no loss scaling"),
    "pretrained": Value(True, "reference configuration: ImageNet weights, torchvision's V1 for ResNets"),
    "batch_norm": Value(FROZEN, "reference configuration: all, with ImageNet's statistics; Swin has none"),
    "drop_path": Value(0.0, "not used: ResNets have none"),
    "activation_checkpointing": Value(False, "ours: only Swin-L needs it"),
    "seeds": Value((0, 1, 2), "ours: median and range of three"),
}

COCO: Values = _PAPER | {
    "iterations": Value(368_750, "paper D.1: 50 epochs; reference configuration"),
    "schedule": Value("step", "paper D.1"),
    "step_fractions": Value(
        (327_778 / 368_750, 355_092 / 368_750),
        "reference configuration: 327778 and 355092 of 368750; paper D.1 says 0.9, 0.95",
    ),
    "step_factor": Value(0.1, "paper D.1"),
    "poly_power": Value(0.9, "not used: the schedule is step"),
    "warmup_iterations": Value(
        10, "reference configuration; linear here, where Mask2Former's factor of 1.0 makes it none"
    ),
    "crop_size": Value((1024, 1024), FOLLOWED),
    "resize_mode": Value("scale", f"large-scale jitter: {FOLLOWED}"),
    "scale_range": Value((0.1, 2.0), FOLLOWED),
    "scale_steps": Value(0, f"uniform: {FOLLOWED}"),
    "longest_side": Value(None, _NO_STEPS),
    "diagonal_crop": Value(True, f"one number for both offsets of the crop: {FOLLOWED} (detectron2's FixedSizeCrop)"),
    "keep_emptied": Value(True, f"a crop's segments without a pixel are empty targets: {FOLLOWED}"),
    "colour_jitter": Value(False, FOLLOWED),
    "test_shorter_side": Value(800, "paper D.1"),
    "test_longer_side": Value(1333, "paper D.1"),
}
COCO_INSTANCE: Values = COCO | {
    "keep_emptied": Value(False, f"objects of which the crop has no part are no targets: {FOLLOWED}"),
}

_SEMANTIC: Values = _PAPER | {
    "schedule": Value("poly", "paper D.2"),
    "poly_power": Value(0.9, FOLLOWED),
    "step_fractions": Value((), "not used: the schedule is poly"),
    "step_factor": Value(0.1, "not used: the schedule is poly"),
    "warmup_iterations": Value(0, FOLLOWED),
    "resize_mode": Value("shorter_side", FOLLOWED),
    "scale_steps": Value(16, f"0.5, 0.6, ... 2.0 of the paper's range: {FOLLOWED}"),
    "diagonal_crop": Value(False, FOLLOWED),
    "keep_emptied": Value(False, f"targets are the classes of the crop: {FOLLOWED}"),
    "colour_jitter": Value(True, f"paper D.2; SSD's: {FOLLOWED}"),
}

ADE20K: Values = _SEMANTIC | {
    "iterations": Value(160_000, "paper D.2"),
    "crop_size": Value((512, 512), "paper D.2"),
    "scale_range": Value((0.5, 2.0), "paper D.2, times the crop"),
    "longest_side": Value(2048, FOLLOWED),
    "test_shorter_side": Value(512, FOLLOWED),
    "test_longer_side": Value(2048, FOLLOWED),
}

CITYSCAPES: Values = _SEMANTIC | {
    "iterations": Value(90_000, "paper D.2"),
    "crop_size": Value((512, 1024), "paper D.2"),
    "scale_range": Value(
        (1.0, 4.0),
        "paper D.2: 0.5 to 2.0 times the image, whose shorter side of 1024 is twice the crop's 512",
    ),
    "longest_side": Value(4096, FOLLOWED),
    "test_shorter_side": Value(1024, FOLLOWED),
    "test_longer_side": Value(2048, FOLLOWED),
}

# Of every data set at small scale: for minutes on two cores, from random weights.
_SAME = "as at paper scale"
_SMALL: Values = _PAPER | {
    "batch_size": Value(8, "ours: fits the time"),
    "learning_rate": Value(1e-3, "ours: short training from scratch"),
    "backbone_multiplier": Value(1.0, "ours: nothing is pretrained, so the backbone learns at the full rate"),
    "schedule": Value("step", f"{_SAME} on COCO"),
    "step_fractions": Value((0.9, 0.95), "paper D.1"),
    "step_factor": Value(0.1, "paper D.1"),
    "poly_power": Value(0.9, "not used: the schedule is step"),
    "warmup_iterations": Value(10, "ours: short training from scratch"),
    "num_points": Value(512, "ours: in proportion to the crop"),
    "class_loss_images": Value(None, "ours: the whole batch, of one process"),
    "scale_steps": Value(0, "ours: uniform"),
    "longest_side": Value(None, _NO_STEPS),
    "diagonal_crop": Value(False, "ours: crops everywhere"),
    "padding_value": Value(None, "ours: the mean colour"),
    "keep_emptied": Value(False, "ours: crops of a few segments"),
    "test_shorter_side": Value(None, "ours: the images' own size"),
    "test_longer_side": Value(None, "ours: the images' own size"),
    "precision": Value("float32", "ours: CPUs"),
    "pretrained": Value(False, "ours: the small backbone has no ImageNet weights"),
    "batch_norm": Value(WHOLE_BATCH, "ours: trained, as nothing is pretrained; statistics of all images of a step"),
    "drop_path": Value(0.0, "ours: the small backbone is a ResNet"),
    "activation_checkpointing": Value(False, "ours: memory is no limit"),
}

SYNTHETIC: Values = _SMALL | {
    "iterations": Value(450, "ours: a minute or two"),
    "crop_size": Value((96, 96), "ours: more steps in the same time"),
    "resize_mode": Value("scale", "ours: the images' own size"),
    "scale_range": Value((4 / 3, 4 / 3), "ours: the images' own size, 128 pixels"),
    "colour_jitter": Value(False, "ours: the scenes' colours vary already"),
}

CAMVID: Values = _SMALL | {
    "batch_size": Value(4, "ours: more steps in the same time"),
    "iterations": Value(1000, "ours: about 11 epochs, some minutes"),
    "crop_size": Value((96, 128), "ours: more steps in the same time, the images' aspect"),
    "resize_mode": Value("shorter_side", "as on Cityscapes"),
    "scale_range": Value((1.125, 2.25), "ours: shorter side 108 to 216 pixels, 0.6 to 1.2 times the images'"),
    "colour_jitter": Value(True, "as on Cityscapes"),
}

NUCLEI: Values = _SMALL | {
    "iterations": Value(500, "ours: 11 epochs, about five minutes of one core"),
    "crop_size": Value((96, 96), "ours: more steps in the same time"),
    "resize_mode": Value("shorter_side", "ours: the images have one shorter side, 256 pixels"),
    "scale_range": Value((2.0, 4.0), "ours: shorter side 192 to 384 pixels, 0.75 to 1.5 times the images'"),
    "colour_jitter": Value(False, "ours: added brightness would drown dark nuclei"),
}


# Per-pixel methods: "the training protocol is following [69]" (paper E.1), PSPNet's, section 5.1 of its paper.
_PSPNET = "PSPNet 5.1 (paper E.1 follows it)"
_UNUSED = "not used: the loss is a cross-entropy of pixels"
_OF_MASKS = (
    "class_weight", "mask_weight", "dice_weight", "no_object_weight", "num_points", "class_loss_images", "keep_emptied",
)  # fmt: skip
_PER_PIXEL: Values = {
    "optimiser": Value("sgd", _PSPNET),
    "momentum": Value(0.9, _PSPNET),
    "learning_rate": Value(0.01, _PSPNET),
    "weight_decay": Value(1e-4, _PSPNET),
    "schedule": Value("poly", _PSPNET),
    "poly_power": Value(0.9, _PSPNET),
    "warmup_iterations": Value(0, _PSPNET),
    "batch_size": Value(16, _PSPNET),
    "batch_norm": Value(WHOLE_BATCH, f"trained, statistics of 16 images: {_PSPNET}"),
    "backbone_multiplier": Value(1.0, "ours: PSPNet 5.1 names one rate"),
    "auxiliary_weight": Value(0.4, f"{_PSPNET}: of the loss on the third stage's feature"),
    "clip_norm": Value(1e6, "in effect none: PSPNet clips nothing"),
    "scale_steps": Value(0, f"{_PSPNET}: uniform"),
    "longest_side": Value(None, _NO_STEPS),
    "padding_value": Value(None, "the mean colour: PSPNet's released configuration"),
    "colour_jitter": Value(False, "PSPNet 5.1: none; its rotation by 10 degrees and its blur on ADE20K are not built"),
}
PIXELS_ON_ADE20K: Values = {
    "iterations": Value(150_000, _PSPNET),
    "crop_size": Value((512, 512), "paper E.1"),
    "scale_range": Value((0.5, 2.0), f"{_PSPNET}, of the image; here times the crop, as for the other methods"),
}
PIXELS_ON_CITYSCAPES: Values = {
    "iterations": Value(90_000, _PSPNET),
    "crop_size": Value((713, 713), "PSPNet's released configuration"),
    "scale_range": Value((512 / 713, 2048 / 713), f"{_PSPNET}: 0.5 to 2.0 times the image of 1024"),
}


# Released configurations that are not followed: why, by method and data set, and by field.
NOT_FOLLOWED = {
    ("hcformer+", "ade20k"): {
        "iterations": "the released file inherits 160k, which its own name, 320k as in the paper, contradicts"
    },
    ("mask2former", "cityscapes"): {
        "batch_norm": "Mask2Former's own trains them on Cityscapes (SyncBN): not followed, one protocol for all methods"
    },
}


def variations(dataset: "Dataset", scale: str, method: "Method", backbone: "Backbone") -> Values:
    """What differs from the data set's recipe for one method and backbone, as the paper varies it."""
    values = dataset.recipes[scale]
    of_backbone = {**backbone.recipe, **backbone.recipe_on.get(dataset.name, {})} if scale == "paper" else {}
    if method.predicts == "pixels":
        unused = {name: Value(values[name].value, _UNUSED) for name in _OF_MASKS}
        return unused | (_PER_PIXEL | dataset.recipe_of_pixels if scale == "paper" else {}) | of_backbone
    if scale != "paper":
        return {}
    changed = dict(of_backbone)
    doubled = [method.label] if method.doubled_iterations else []
    doubled += [backbone.label] if dataset.name in backbone.doubled_iterations else []
    if doubled:
        iterations, source = values["iterations"]
        section = source.partition(":")[0]
        source = f"{section}: doubled for {' and again for '.join(doubled)}"
        changed["iterations"] = Value(iterations * 2 ** len(doubled), source)
    for name, why in NOT_FOLLOWED.get((method.name, dataset.name), {}).items():
        if name not in of_backbone:
            value, source = (values | changed)[name]
            changed[name] = Value(value, f"{source}; {why}")
    return changed
