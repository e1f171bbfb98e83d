"""`bench regression`: the gate against regressions."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import stores
from bench.errors import BenchError, plain

StoreToCompare = Annotated[
    Path | None, typer.Option("--store", help="Store to compare with; default: results/reference.")
]
PartOption = Annotated[
    list[str] | None, typer.Option("--part", help="Only this part: complexity, training or latency.")
]


def regression(store: StoreToCompare = None, part: PartOption = None) -> None:
    """Measure a little again and compare with a store, in five minutes; a line for each breach, exit code 1.

    Runs on the CPU, as the reference did, in results/local/regression; the store is only read.
    """
    from bench.records import Store
    from bench.regression.gate import check

    folder = store or stores.RESULTS / "reference"
    if not folder.is_dir():
        raise BenchError(f"{folder} is not a folder: give an existing store with --store")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the jobs are ended
    begun = time.monotonic()
    scratch = Store(stores.RESULTS / "local" / "regression")
    try:
        passed = check(Store(folder), scratch, part or [], lambda finding: typer.echo(plain(str(finding))))
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    typer.echo(f"{'no breach' if passed else 'breaches'} in {time.monotonic() - begun:.0f} s")
    if not passed:
        sys.exit(1)
