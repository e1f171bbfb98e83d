"""`bench` with little generated data and a recipe of seconds: a program for test_cli_launch, which also shrinks so."""

from dataclasses import replace

from bench.data import synthetic
from bench.experiments.recipe import RECIPES

KEY = ("synthetic_panoptic", "small")
ITERATIONS = 10


def shrink() -> None:
    synthetic.SPLITS = {"train": 6, "val": 3}
    RECIPES[KEY] = replace(RECIPES[KEY], iterations=ITERATIONS, batch_size=2, num_points=64)


if __name__ == "__main__":
    from bench import cli

    shrink()
    cli.main()
