"""Two runs on one store, killed and begun again at random: every record once, whole, and as an undisturbed run's."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.campaign import reduced_run

MEAN_S = 15.0
KILLS_A_ROUND = 4


def campaign(folder: Path, rounds: int, seed: int, report: Callable[[str], None]) -> str:
    """ "passed: ..." or "failed: ..." with the figures."""
    chance, done, wrong = random.Random(seed), Counter(), []
    expected = reduced_run.undisturbed(folder)
    for number in range(1, rounds + 1):
        store = folder / f"shared-{number}"
        _finish(folder, store, chance, done)
        left = [f"process {pid} is left" for pid in reduced_run.wait_for_no_process(store)]
        found = reduced_run.differences(reduced_run.results(store), expected)
        wrong += [f"round {number}: {what}" for what in (*left, *found)]
        report(f"round {number} of {rounds}: {done.total()} kills so far, {len(wrong)} difference(s)")
        shutil.rmtree(store)
    figures = f"{rounds} rounds of two runs, {done.total()} kills"
    return f"failed: {figures}: " + "; ".join(wrong) if wrong else f"passed: {figures}, no record lost or damaged"


def _finish(folder: Path, store: Path, chance: random.Random, done: Counter) -> None:
    """Both runs until each has ended well once; a killed one begins again."""
    runs, kills = [reduced_run.start(folder, store) for _ in range(2)], 0
    while any(run.poll() != 0 for run in runs):
        for number, run in enumerate(runs):
            if run.poll() not in (None, 0):
                assert run.returncode in (2, -9), (folder / "output.txt").read_text()[-1000:]
                runs[number] = reduced_run.start(folder, store)
        busy = [run for run in runs if run.poll() is None]
        if busy and not reduced_run.ends_within(chance.choice(busy), chance.expovariate(1 / MEAN_S)):
            if kills < KILLS_A_ROUND:
                kills += 1
                done[reduced_run.kill(chance.choice(busy), chance)] += 1
