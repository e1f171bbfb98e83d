"""From a model's prediction to the results of a task: the one way, which is evaluated, shown, timed and counted.

A further kind of prediction needs one more function here, registered by its type.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

from torch import Tensor
from torch.nn.functional import interpolate

from bench.evaluation.postprocess import (
    OBJECT_THRESHOLD,
    InstanceResult,
    PanopticResult,
    Sizes,
    instance_predictions,
    panoptic_segments,
    pixel_labels,
    resize_masks,
    semantic_labels,
    semantic_labels_of,
)
from models.outputs import MaskPrediction, PixelPrediction

# What is evaluated of a task; the first is what the task is named after.
RESULTS = {"panoptic": ("panoptic", "instances", "labels"), "instance": ("instances",), "semantic": ("labels",)}


@dataclass(frozen=True)
class Results:
    """At the image's original size, on the model's device; None where the task has no such result, or none is wanted.

    labels: class indices int64 [H, W].
    """

    panoptic: PanopticResult | None = None
    instances: InstanceResult | None = None
    labels: Tensor | None = None


@singledispatch
def results_of(
    prediction: object,
    task: str,
    sizes: Sizes,
    is_thing: Sequence[bool],
    wanted: Sequence[str] = (),
    counted: bool = False,
    object_threshold: float | None = None,
    cut_to_mask: bool = True,
) -> Results:
    """The results of one image (batch 1): a `MaskPrediction`, a `PixelPrediction` or `baselines.mask_rcnn`'s boxes.

    sizes: padded, image and original (H, W), see `resize_masks`. is_thing: of each of the K classes.
    wanted: some of `RESULTS[task]`, all by default.
    counted: do what has FLOPs and nothing else, without a look at values, so that it runs on the meta device and can
    be traced. What is left out compares, multiplies element by element and counts pixels: 0 by fvcore's rules.

    object_threshold: of `panoptic_segments`, None: its own. cut_to_mask: of that, too.

    Raises ValueError where such a prediction gives no results of the task, TypeError for any other kind.
    """
    raise TypeError(f"no results of a {type(prediction).__name__}: register a function for it")


@results_of.register
def _(
    prediction: MaskPrediction, task, sizes, is_thing, wanted=(), counted=False, object_threshold=None, cut_to_mask=True
) -> Results:
    classes, masks = prediction.class_logits[0], prediction.mask_logits[0]  # [Q, K+1], [Q, h, w]
    if task == "semantic":
        return Results(labels=semantic_labels_of(classes, masks, *sizes))
    wanted, labels = wanted or RESULTS[task], None
    resized = counted or "labels" in wanted  # labels need every mask at full size: the others take them from there
    if resized:
        masks = resize_masks(masks, *sizes)  # [Q, H, W]
    if "labels" in wanted:
        labels = semantic_labels(classes, masks)
    if counted:
        return Results(labels=labels)
    sizes = None if resized else sizes
    panoptic = None
    if "panoptic" in wanted:
        limit = OBJECT_THRESHOLD if object_threshold is None else object_threshold
        panoptic = panoptic_segments(classes, masks, is_thing, limit, sizes=sizes, cut_to_mask=cut_to_mask)
    instances = instance_predictions(classes, masks, is_thing, sizes=sizes) if "instances" in wanted else None
    return Results(panoptic, instances, labels)


@results_of.register
def _(prediction: PixelPrediction, task, sizes, is_thing, wanted=(), counted=False, **rules) -> Results:
    if task != "semantic":
        raise ValueError(f"classes of pixels have no {task} results")
    return Results(labels=pixel_labels(prediction.logits[0], *sizes))


@results_of.register(list)
def _(prediction: list[dict[str, Tensor]], task, sizes, is_thing, wanted=(), counted=False, **rules) -> Results:
    """Of masks in boxes. Counted is the most: every box is the whole image."""
    if task != "instance":
        raise ValueError(f"boxes have no {task} results")
    from torchvision.models.detection.roi_heads import paste_masks_in_image  # only here: it takes a second

    (found,), (_, image, original) = prediction, sizes
    if counted:
        interpolate(found["masks"], size=original, mode="bilinear")  # [N, 1, H, W]
        return Results()
    scale = found["boxes"].new_tensor([original[1] / image[1], original[0] / image[0]] * 2)  # x, y, x, y
    masks = paste_masks_in_image(found["masks"], found["boxes"] * scale, original)[:, 0] >= 0.5  # [N, H, W]
    return Results(instances=InstanceResult(found["scores"], found["labels"] - 1, masks))
