"""The command line, put together. Packages that take time are imported only by the commands that need them."""

import errno
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from bench.cli import data as cli_data
from bench.cli import launch as cli_launch
from bench.cli import listing as cli_listing
from bench.cli import models as cli_models
from bench.cli import options
from bench.cli import predict as cli_predict
from bench.cli import recipe as cli_recipe
from bench.cli import regression as cli_regression
from bench.cli import score as cli_score
from bench.cli import speed as cli_speed
from bench.cli import table as cli_table
from bench.cli import train as cli_train
from bench.errors import BenchError, plain
from bench.machine import stand_in_for_account

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False,
    help="Reproducibility benchmark for HCFormer: measure a table of the paper and set it beside the published one.",
)  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hcformer-bench {version('hcformer-bench')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Holds the options of `bench` itself."""


_panels: dict[str, list[tuple[str, Callable[..., None] | typer.Typer]]] = {
    options.MEASURE: [
        ("plan", cli_table.plan), ("run", cli_table.run), ("report", cli_table.report),
        ("list", cli_listing.list_names),
    ],
    options.TRAIN: [("train", cli_train.train), ("launch", cli_launch.launch), ("recipe", cli_recipe.recipe)],
    options.CHECKPOINT: [
        ("predict", cli_predict.predict), ("score", cli_score.score), ("compare", cli_score.compare),
        ("weights", cli_models.weights),
    ],
    options.DATA: [("data", cli_data.data)],
    options.CHECK: [
        ("regression", cli_regression.regression), ("benchmark", cli_speed.benchmark),
        ("gpu-check", cli_speed.gpu_check),
    ],
}  # fmt: skip
for _panel, _commands in _panels.items():
    for _name, _command in _commands:
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(_command)


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    try:
        stand_in_for_account()
        app(standalone_mode=True, prog_name="bench")
    except BenchError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # which name no file
            _fail(f"{error.strerror}: free space or give another --store or --out")
        if "temporary directory" in str(error):  # none can be written, says tempfile
            _fail(f"{error.strerror}: free space or set TMPDIR")
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}: make it writable or give another --store or --out")


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {plain(message)}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
