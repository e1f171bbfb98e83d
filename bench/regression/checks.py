"""What counts as a regression: the comparisons of `bench regression`, each of numbers measured now and stored ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose, nan
from statistics import median

from bench.errors import BenchError
from bench.records import Record, samples_beside

EXACT = 1e-9  # relative
# At least so far on either side of the range of the seeds: points, and a share of the loss.
MARGINS = {"PQ": 3.0, "AP_pan_th": 3.0, "mIoU_pan": 3.0}
LOSS_MARGIN = 0.1
SLOWER = 1.25


@dataclass(frozen=True)
class Finding:
    """One line of the gate. state: "ok", "breach", or "again" for what is measured once more before it counts.

    seconds: of the measurement behind it, None where that is not its own.
    """

    state: str
    part: str
    text: str
    seconds: float | None = None

    def __str__(self) -> str:
        spent = "" if self.seconds is None else f" ({self.seconds:.0f} s)"
        return f"{self.state:6}  {self.part:10}  {self.text}{spent}"


def compare_complexity(row: str, now: Record, then: Record) -> Finding:
    """Parameters and FLOPs, in all and operator by operator."""
    (flops, stored), params = (r.metrics["flops"] for r in (now, then)), now.metrics["params"]["value"]
    counts, wanted = flops["by_operator"], stored["by_operator"]
    pairs = {"parameters (M)": (params, then.metrics["params"]["value"])}
    pairs |= {"FLOPs (G)": (flops["value"], stored["value"])}
    pairs |= {name: (counts.get(name, 0.0), wanted.get(name, 0.0)) for name in sorted({*counts, *wanted})}
    other = [f"{name} {a:.9g} instead of {b:.9g}" for name, (a, b) in pairs.items() if not isclose(a, b, rel_tol=EXACT)]
    same = f"{params:.6f} M parameters, {flops['value']:.6f} G FLOPs, as stored"
    text = f"{row}: {', '.join(other) or same}"
    return Finding("breach" if other else "ok", "complexity", text, now.provenance["duration_s"])


def compare_training(now: Record, then: Sequence[Record]) -> Iterator[Finding]:
    """Every metric within the range of the stored seeds, widened on both sides by its width or the margin.

    On the machine and software of the store the seed gives the stored numbers, elsewhere those of another draw: three
    draws span 1.7 standard deviations on average, so that this allows 2.5 around the middle, and the margin at least.
    """
    good, seconds = [], now.provenance["duration_s"]
    for name in (*MARGINS, "final_loss"):
        values = [record.metrics[name]["value"] for record in then]
        low, high = min(values), max(values)
        wider = max(high - low, MARGINS.get(name, LOSS_MARGIN * median(values)))
        value = now.metrics[name]["value"] if name in now.metrics else nan  # no metric where there is no average
        text = f"{name} {value:.2f} (allowed {low - wider:.2f} to {high + wider:.2f})"
        if low - wider <= value <= high + wider:
            good.append(text)
        else:
            yield Finding("breach", "training", f"{text}, stored seeds {low:.2f} to {high:.2f}", seconds)
    if good:
        yield Finding("ok", "training", ", ".join(good), seconds)


def compare_latency(over: Record, under: Record, stored: float, last: bool) -> Finding:
    """The ratio is the stored one within a quarter: above, the first is slower than it was; below, the second. last:
    whether a breach counts."""
    ratio, low, high = latency_ratio(over, under), stored / SLOWER, SLOWER * stored
    state = "ok" if low <= ratio <= high else "breach" if last else "again"
    names = " / ".join(f"{r.experiment.method} {r.experiment.backbone}" for r in (over, under))
    times = " / ".join(f"{r.metrics['latency_network']['value']:.0f}" for r in (over, under))
    n = over.metrics["latency_network"]["n"]
    text = f"{names}: {times} ms = {ratio:.3f}, n = {n} (allowed {low:.3f} to {high:.3f}, stored {stored:.3f})"
    text += ", on a busy machine" if over.is_of_busy_machine or under.is_of_busy_machine else ""
    return Finding(state, "latency", text, over.provenance["duration_s"])


def latency_ratio(over: Record, under: Record) -> float:
    """Of the networks' medians. Raises BenchError unless both were timed in one run on a CPU."""
    name = "latency_network"
    beside = over.samples.get(samples_beside(name, under.experiment))
    if over.details["device"] != "cpu" or not (beside or over.details["run"] == under.details["run"]):
        raise BenchError(
            f"latencies of {over.experiment.key} and {under.experiment.key} are not of one run on a CPU: give a store "
            "where they are with --store, or measure there with 'bench run table1 --force'"
        )
    return over.metrics[name]["value"] / (median(beside) if beside else under.metrics[name]["value"])
