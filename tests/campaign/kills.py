"""SIGKILLs at random moments: a run that was killed again and again ends with the tables of one that was not."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.campaign import reduced_run

MEAN_S = 8.0  # until the next kill; now and then long enough for the slowest job


def campaign(folder: Path, kills: int, seed: int, report: Callable[[str], None]) -> str:
    """Kill runs that many times; "passed: ..." or "failed: ..." with the figures.

    A store that is finished is compared with that of an undisturbed run, and a new one is begun.
    """
    chance, done = random.Random(seed), Counter()
    expected, wrong, stores = reduced_run.undisturbed(folder), [], 0
    while done.total() < kills:
        stores += 1
        store = folder / f"killed-{stores}"
        for what in _finish(folder, store, kills, chance, done):
            report(f"{done.total()} of {kills}: {what}")
        left = [f"process {pid} is left" for pid in reduced_run.wait_for_no_process(store)]
        found = reduced_run.differences(reduced_run.results(store), expected)
        wrong += [f"store {stores}: {what}" for what in (*left, *found)]
    kinds = ", ".join(f"{what} {count}" for what, count in sorted(done.items()))
    figures = f"{done.total()} kills ({kinds}), {stores} finished table(s)"
    return f"failed: {figures}: " + "; ".join(wrong) if wrong else f"passed: {figures}, as undisturbed to the bit"


def _finish(folder: Path, store: Path, kills: int, chance: random.Random, done: Counter) -> Iterator[str]:
    """Run until the table is finished, killing on the way; yields what was killed.

    Raises AssertionError where a run fails though nobody killed a job of it.
    """
    while True:
        run, job_killed = reduced_run.start(folder, store), False
        while run.poll() is None:
            if done.total() >= kills:
                run.wait()
            elif not reduced_run.ends_within(run, patience := chance.expovariate(1 / MEAN_S) + 0.2):
                what = reduced_run.kill(run, chance)
                done[what] += 1
                job_killed |= what == "job"
                yield f"{what} after {patience:.1f} s"
                if what != "job":
                    run.wait()
        if run.returncode == 0:
            return
        killed = run.returncode < 0 or job_killed and run.returncode == 2  # the run says which job failed
        assert killed, f"ended with {run.returncode}: {(folder / 'output.txt').read_text()[-1000:]}"
