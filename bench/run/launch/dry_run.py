"""What a dry run prints: the jobs, what they cost, and their commands."""

import shlex
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from bench.experiments.recipe import recipe_for
from bench.run.launch.cost import StepTime, device_hours
from bench.run.launch.plan import Setup, Training, command

HEAD = ("row", "seed", "state", "iterations", "{} s a step", "{} hours", "hours", "step time")
ALIGNMENT = ("left", "right", "left", "right", "right", "right", "right", "left")


def describe(trainings: Sequence[Training], steps: Mapping[Training, StepTime], setup: Setup) -> str:
    """A table with a line a job, the sum, and the commands as a shell takes them."""
    device = "GPU" if setup.gpus else "core"
    hours = {training: device_hours(training.experiment, steps[training]) for training in trainings}
    rows = [
        (t.row, t.seed, t.state, f"{recipe_for(t.experiment).iterations:,}", f"{steps[t].seconds:.2f}",
         _number(hours[t]), _number(hours[t] / setup.processes), steps[t].source)
        for t in trainings
    ]  # fmt: skip
    table = tabulate(rows, [name.format(device) for name in HEAD], disable_numparse=True, colalign=ALIGNMENT)
    total = (
        f"{len(trainings)} jobs of {setup.processes} {device}(s): about {_number(sum(hours.values()))} {device} hours, "
        "if speed is proportional to their number; evaluation comes on top"
    )
    return "\n".join([table, "", total, "", *(shlex.join(command(training, setup)) for training in trainings)])


def _number(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"
