"""What is measured: experiments, the recipes they are trained with, and the paper's tables."""

from bench.experiments.experiment import Experiment, experiment
from bench.experiments.recipe import RECIPES, Recipe, recipe_for, sources_for
from bench.experiments.tables import TABLES, PaperTable, find_row, get_table

__all__ = [
    "RECIPES",
    "TABLES",
    "Experiment",
    "PaperTable",
    "Recipe",
    "experiment",
    "find_row",
    "get_table",
    "recipe_for",
    "sources_for",
]
