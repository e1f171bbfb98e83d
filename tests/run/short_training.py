"""`bench` with little generated data and a recipe of seconds: a program for tests/cli/test_launch, which shrinks so."""

from dataclasses import replace

from bench.data.synthesis import synthetic
from bench.experiments.recipe import RECIPES

KEY = ("synthetic_panoptic", "small")
ITERATIONS = 10


def shrink() -> None:
    synthetic.SPLITS = {"train": 6, "val": 3}
    RECIPES[KEY] = replace(RECIPES[KEY], iterations=ITERATIONS, batch_size=2, num_points=64)


if __name__ == "__main__":
    from bench.cli import app as cli

    shrink()
    cli.main()
