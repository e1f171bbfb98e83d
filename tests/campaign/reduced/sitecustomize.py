"""Makes Table 1 small: a process with this folder on its path measures two rows of the paper's and four trainings of
seconds, and checkpoints every second. Real commands, jobs and files; only the amounts are less.

Python imports this by its name when it starts, in the jobs of a run too.
"""

import importlib.abc
import importlib.machinery
import os
import sys

SHORT = "CAMPAIGN_SHORT" in os.environ  # for the tests: two trainings of a few steps, nothing counted or timed
ROWS = set() if SHORT else {("hcformer", "r50"), ("maskformer", "r50")}
TRAINED = {("hcformer", 0), ("maskformer", 0)} | (set() if SHORT else {("hcformer", 1), ("mask2former", 0)})


def _fewer_steps(protocols) -> None:
    for values in (protocols._SMALL, protocols.SYNTHETIC):
        values["iterations"] = protocols.Value(5 if SHORT else 16, "the campaign")


def _fewer_measurements(table) -> None:
    every = table.PaperTable.measurements

    def some(self, scale="small"):
        return tuple(
            m
            for m in every(self, scale)
            if (m.kind != "accuracy" and (m.experiment.method, m.experiment.backbone) in ROWS)
            or (m.kind == "accuracy" and (m.experiment.method, m.seed) in TRAINED)
        )

    table.PaperTable.measurements = some


def _fewer_scenes(synthetic) -> None:
    synthetic.SPLITS.update(train=16 if SHORT else 24, val=3 if SHORT else 8)


def _often_saved(engine) -> None:
    engine.CHECKPOINT_SECONDS = 0.0 if SHORT else 1.0


def _quickly_timed(plan) -> None:
    plan.LATENCY_BUDGET_S = 1.0


CHANGES = {
    "bench.experiments.protocols": _fewer_steps,
    "bench.experiments.table": _fewer_measurements,
    "bench.data.synthesis.synthetic": _fewer_scenes,
    "bench.training.engine": _often_saved,
    "bench.run.plan": _quickly_timed,
}


class _Changing(importlib.abc.MetaPathFinder):
    """Applies a module's change right after its import."""

    def find_spec(self, name, path=None, target=None):
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def change(module) -> None:
            execute(module)
            CHANGES[name](module)

        spec.loader.exec_module = change
        return spec


sys.meta_path.insert(0, _Changing())
