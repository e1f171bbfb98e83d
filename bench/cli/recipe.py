"""The command `bench recipe show`: every value of a row's training and testing, and where it comes from."""

from collections.abc import Iterable

import typer

from bench.cli import options

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
    row: options.RowName,
) -> None:
    """Print every value of a row with its source: a section of the paper, a released configuration, or our reason."""
    from bench.experiments.backbones import get_backbone
    from bench.experiments.datasets import get_dataset
    from bench.experiments.experiment import factor_sources
    from bench.experiments.fixed_values import fixed_values
    from bench.experiments.recipe import recipe_for, sources_for
    from bench.experiments.tables import find_row

    experiment = find_row(row)
    recipe, factors, sources = recipe_for(experiment), factor_sources(experiment), sources_for(experiment)
    rows = [(name, getattr(experiment, name), source) for name, source in factors.items()]
    rows += [(name, getattr(recipe, name), sources[name]) for name in sources]
    rows += fixed_values(recipe, get_backbone(experiment.backbone), get_dataset(experiment.dataset).task)
    typer.echo(f"{row}: {experiment.dataset}, scale {experiment.scale}, recipe {recipe.hash}\n")
    typer.echo(_aligned((name, _plain(value), source) for name, value, source in rows))
    typer.echo(f"\n{LEGEND}")


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
