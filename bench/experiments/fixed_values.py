"""What is the same in every recipe and therefore no field of `Recipe`: constants of sampling and augmentation."""

from bench.experiments.backbones import Backbone, Normalisation
from bench.experiments.recipe import Recipe

# Points of the mask loss (PointRend): drawn for each that is kept, and the share of the most uncertain ones.
OVERSAMPLE_RATIO = 3
IMPORTANCE_RATIO = 0.75

FLIP = 0.5  # probability

# Colour jitter.
BRIGHTNESS = 32 / 255  # added, up to this much
CONTRAST = (0.5, 1.5)  # multiplies the values
SATURATION = (0.5, 1.5)  # multiplies S of HSV
HUE = 18 / 180  # turns H of HSV, up to this part of a circle (18 of OpenCV's 180)


def fixed_values(recipe: Recipe, backbone: Backbone, task: str) -> list[tuple[str, object, str]]:
    """(name, value, source) of what is the same in every recipe of a task and therefore no field of `Recipe`."""
    mean: object = "its own"
    std: object = "its own"
    source = "timm's configuration of the model"
    if isinstance(backbone.normalisation, Normalisation):
        mean, std, source = backbone.normalisation.mean, backbone.normalisation.std, "reference configuration"
    values = [
        ("oversampling", OVERSAMPLE_RATIO, "of the points of the mask loss: reference configuration"),
        ("importance", IMPORTANCE_RATIO, "share of the most uncertain points: reference configuration"),
        ("flip", FLIP, "probability, left to right: paper D.2, Mask2Former's configuration"),
        ("pixel_mean", mean, source),
        ("pixel_std", std, source),
    ]
    instances = task == "instance"
    values += [
        ("masks", "polygons, drawn in the crop" if instances else "nearest pixel", "Mask2Former's configuration"),
        ("empty images", "left out" if instances else "trained on", "Mask2Former's configuration"),
    ]
    if recipe.colour_jitter:
        ssd = "with probability 0.5: SSD, as in Mask2Former's configuration"
        values += [
            ("brightness", round(BRIGHTNESS * 255), f"of 255, added or taken off at most, {ssd}"),
            ("contrast", CONTRAST, f"factor, {ssd}"),
            ("saturation", SATURATION, f"factor, {ssd}"),
            ("hue", round(HUE * 360), f"degrees at most, {ssd}"),
        ]
    return values
