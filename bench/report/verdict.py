"""The verdict of one cell: a short fixed text (DESIGN, section 5)."""

from bench.experiments.published import Published

REQUIRED_SEEDS = 3
RELEASED = "released checkpoint"
TOO_FEW = "too few seeds"
PART = "part of the data"
# What cells are counted as, in the order of the overview; the last two only where there are any.
CATEGORIES = (
    "reproduced",
    "off",
    TOO_FEW,
    "other scale",
    "other device",
    "no published value",
    "not measured",
    RELEASED,
    PART,
)


def verdict(published: Published | None, measured: float | None, n: int, kind: str, scale: str) -> str:
    """Compare a measured value with the printed one.

    n: seeds behind an accuracy value (the range of the other kinds does not matter).  kind: record kind.
    Returns "not measured", "other scale", "no published value", "single run", "<n> of 3 seeds", "other device" (a
    latency: the paper's was taken on another machine than any reader's), "reproduced",
    "off by +1.2" (points of a percentage), "off by +1.2 %" (of the printed value) or "off by +0.75 M". A checkpoint
    that others trained reproduces nothing: "released checkpoint (+0.3)", or "released checkpoint" without a printed
    value.
    """
    if measured is None:
        return "not measured"
    if scale != "paper":
        return "other scale"
    if kind == "released":
        return f"{RELEASED} ({difference_text(published, measured)})" if published else RELEASED
    if published is None:
        return "no published value"
    if kind == "latency":
        return "other device"
    if kind == "accuracy" and n < REQUIRED_SEEDS:
        return "single run" if n == 1 else f"{n} of {REQUIRED_SEEDS} seeds"
    gap = difference(published, measured)
    if abs(gap) <= published.tolerance + 1e-9:  # 47.7 - 47.2 is a little more than 0.5 in floating point
        return "reproduced"
    return f"off by {difference_text(published, measured)}"


def difference(published: Published, measured: float) -> float:
    """Measured minus printed, in the unit of the tolerance: percent of the printed value, or the value's own."""
    gap = measured - published.value
    return 100 * gap / published.value if published.relative else gap


def difference_text(published: Published, measured: float) -> str:
    """`difference` with sign and unit: "+1.2 %", "+0.75 M", or "-0.4" (points of a percentage)."""
    gap = difference(published, measured)
    if published.relative:
        return f"{gap:+z.1f} %"  # z: no "-0.0"
    return f"{gap:+z.1f}" if published.unit == "%" else f"{gap:+z.2f} {published.unit}"


def category(verdict: str) -> str:
    """The one of `CATEGORIES` that a verdict belongs to."""
    if verdict.endswith(" images"):
        return PART
    if verdict.startswith("off by"):
        return "off"
    if verdict.startswith(RELEASED):
        return RELEASED
    if verdict == "single run" or verdict.endswith(f"of {REQUIRED_SEEDS} seeds"):
        return TOO_FEW
    if verdict not in CATEGORIES:
        raise ValueError(f"no verdict: {verdict!r}")
    return verdict
