"""The command `bench recipe show`: every value of a row's training and testing, and where it comes from."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.experiments.backbones import Backbone
    from bench.experiments.recipe import Recipe

recipe = typer.Typer(no_args_is_help=True, help="Recipes: how the rows of the tables are trained and tested.")
WIDTH = 120  # columns of the printed table, at most
LEGEND = (
    "paper: section or appendix of the HCFormer paper. reference configuration: of its released code. Mask2Former's\n"
    "configuration: the paper follows it where it says nothing else (section 3.1, appendix D). ours: no source but us."
)


@recipe.callback()
def _group() -> None:
    """Keeps `show` a command of its own."""


@recipe.command()
def show(
    row: Annotated[str, typer.Argument(metavar="ROW", help="TABLE/METHOD-BACKBONE, e.g. table1/hcformer-r50.")],
) -> None:
    """Print every value of a row with its source: a section of the paper, a released configuration, or our reason."""
    from bench.experiments.backbones import get_backbone
    from bench.experiments.experiment import factor_sources
    from bench.experiments.recipe import recipe_for, sources_for
    from bench.experiments.tables import find_row

    experiment = find_row(row)
    recipe, factors, sources = recipe_for(experiment), factor_sources(experiment), sources_for(experiment)
    rows = [(name, getattr(experiment, name), source) for name, source in factors.items()]
    rows += [(name, getattr(recipe, name), sources[name]) for name in sources]
    rows += fixed_values(recipe, get_backbone(experiment.backbone))
    typer.echo(f"{row}: {experiment.dataset}, scale {experiment.scale}, recipe {recipe.hash}\n")
    typer.echo(_aligned((name, _plain(value), source) for name, value, source in rows))
    typer.echo(f"\n{LEGEND}")


def fixed_values(recipe: "Recipe", backbone: "Backbone") -> list[tuple[str, object, str]]:
    """(name, value, source) of what is the same in every recipe and therefore no field of `Recipe`."""
    from bench.data import colour
    from bench.experiments.backbones import Normalisation
    from bench.training import points

    known = isinstance(backbone.normalisation, Normalisation)

    values = [
        ("oversampling", points.OVERSAMPLE_RATIO, "of the points of the mask loss: reference configuration"),
        ("importance", points.IMPORTANCE_RATIO, "share of the most uncertain points: reference configuration"),
        ("flip", 0.5, "probability, left to right: paper D.2, Mask2Former's configuration"),
        ("pixel_mean", backbone.normalisation.mean if known else "its own", "reference configuration"),
        ("pixel_std", backbone.normalisation.std if known else "its own", "reference configuration"),
    ]
    values += [
        ("padding", "mean colour", "ours; Mask2Former's configuration: grey, 128"),
        (
            "emptied segments",
            "dropped",
            "ours: a crop's segments without a pixel; Mask2Former keeps them on COCO panoptic",
        ),
        ("empty images", "trained on", "ours; Mask2Former's configuration drops them on COCO instance"),
    ]
    if recipe.resize_mode == "shorter_side":
        values.append(("longest side in training", "any", "ours; Mask2Former's configuration caps it at 2048 to 4096"))
    if recipe.colour_jitter:
        ssd = "with probability 0.5: SSD, as in Mask2Former's configuration"
        values += [
            ("brightness", round(colour.BRIGHTNESS * 255), f"of 255, added or taken off at most, {ssd}"),
            ("contrast", colour.CONTRAST, f"factor, {ssd}"),
            ("saturation", colour.SATURATION, f"factor, {ssd}"),
            ("hue", round(colour.HUE * 360), f"degrees at most, {ssd}"),
        ]
    return values


def _aligned(rows: Iterable[tuple[str, str, str]]) -> str:
    from tabulate import tabulate

    rows = list(rows)
    spare = WIDTH - 4 - sum(max(len(row[column]) for row in rows) for column in (0, 1))
    return tabulate(rows, ["field", "value", "source"], disable_numparse=True, maxcolwidths=[None, None, spare])


def _plain(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
