"""What a launch says of its jobs: how many, what they cost, and how a dry run lists them."""

import shlex
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from bench.experiments.recipe import recipe_for
from bench.run.launch.cost import RULES, StepTime, device_hours
from bench.run.launch.plan import Setup, Training, command

HEAD = ("row", "seeds", "iterations", "{} s a step", "{} hours", "range", "hours a job", "step time")
ALIGNMENT = ("left", "left", "right", "right", "right", "right", "right", "left")


def summary(trainings: Sequence[Training], steps: Mapping[Training, StepTime], setup: Setup) -> str:
    """The answer in a line: jobs, hours of GPUs (or cores) and days of nodes, with their ranges."""
    device = _device(setup)
    hours, low, high = _hours(trainings, steps)
    days = [hours * setup.nodes / setup.processes / 24 for hours in (hours, low, high)]
    return (
        f"{len(trainings)} jobs of {setup.processes} {device}(s): about {_number(hours)} {device} hours "
        f"({_number(low)} to {_number(high)}), {_number(days[0])} node-days ({_number(days[1])} to {_number(days[2])})"
    )


def model_table(trainings: Sequence[Training], steps: Mapping[Training, StepTime], setup: Setup) -> str:
    """A line a model with all its seeds, and the rules behind the numbers."""
    rows = []
    for row in dict.fromkeys(training.row for training in trainings):
        seeds = [training for training in trainings if training.row == row]
        (first, *_), (hours, low, high) = seeds, _hours(seeds, steps)
        wall = device_hours(first.experiment, steps[first]) / setup.processes
        rows.append(
            (row, " ".join(str(training.seed) for training in seeds), f"{recipe_for(first.experiment).iterations:,}",
             f"{steps[first].seconds:.2f}", _number(hours), f"{_number(low)} to {_number(high)}", _number(wall),
             steps[first].source)
        )  # fmt: skip
    names = [name.format(_device(setup)) for name in HEAD]
    return f"{tabulate(rows, names, disable_numparse=True, colalign=ALIGNMENT)}\n\n" + "\n".join(RULES)


def command_lines(trainings: Sequence[Training], setup: Setup) -> str:
    """The commands as a shell takes them."""
    return "\n".join(shlex.join(command(training, setup)) for training in trainings)


def _device(setup: Setup) -> str:
    return "GPU" if setup.gpus else "core"


def _hours(trainings: Sequence[Training], steps: Mapping[Training, StepTime]) -> tuple[float, float, float]:
    """Expected, least and most, of one device."""
    hours = [(device_hours(training.experiment, steps[training]), steps[training].range) for training in trainings]
    return sum(h for h, _ in hours), sum(h * least for h, (least, _) in hours), sum(h * most for h, (_, most) in hours)


def _number(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"
