"""What is said of a cell: a kind, with the amount that it is about (DESIGN, section 5)."""

from dataclasses import dataclass
from enum import StrEnum

from bench.experiments.published import Published

REQUIRED_SEEDS = 3
ROUNDING = 1e-9  # 47.7 - 47.2 is a little more than 0.5 in floating point


class VerdictKind(StrEnum):
    """What cells are counted as, in the order of the overview; the last three only where there are any."""

    REPRODUCED = "reproduced"
    OFF = "off"
    TOO_FEW_SEEDS = "too few seeds"
    OTHER_SCALE = "other scale"
    OTHER_DEVICE = "other device"
    NOT_PRINTED = "no published value"
    NOT_MEASURED = "not measured"
    RELEASED = "released checkpoint"
    PART = "part of the data"
    BUSY = "busy machine"


@dataclass(frozen=True)
class Gap:
    """Measured minus printed. unit: "%" of the printed value, "" for points of a percentage, else the value's own."""

    amount: float
    unit: str

    def __str__(self) -> str:
        """ "+1.2 %", "+0.75 M" or "-0.4"."""
        text = f"{self.amount:+z.{1 if self.unit in ('', '%') else 2}f}"  # z: no "-0.0"
        return f"{text} {self.unit}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """gap: to the printed value, of what is reproduced, off or a released checkpoint's. used, total: seeds where they
    are too few, images of a part of the data. released: of a checkpoint that others trained."""

    kind: VerdictKind
    gap: Gap | None = None
    used: int = 0
    total: int = 0
    released: bool = False

    def __str__(self) -> str:
        if self.kind is VerdictKind.OFF:
            return f"off by {self.gap}"
        if self.kind is VerdictKind.RELEASED and self.gap:
            return f"{self.kind} ({self.gap})"
        if self.kind is VerdictKind.TOO_FEW_SEEDS:
            return "single run" if self.used == 1 else f"{self.used} of {self.total} seeds"
        if self.kind is VerdictKind.PART:
            what = VerdictKind.RELEASED if self.released else "other data"
            return f"{what}, {self.used} of {self.total} images"
        return str(self.kind)


def judge(
    published: Published | None, measured: float | None, n: int, kind: str, scale: str,
    part: tuple[int, int] | None = None, busy: bool = False,
) -> Verdict:  # fmt: skip
    """Compare a measured value with the printed one.

    n: seeds behind an accuracy (the range of the other kinds does not matter). kind: record kind. part: images used
    and images of the whole data set, where only a part was trained or evaluated on: that is held against nothing. Nor
    is a checkpoint that others trained, or a latency: the paper's was taken on another machine than any reader's. busy:
    the machine of a latency did other work.
    """
    if measured is None:
        return Verdict(VerdictKind.NOT_MEASURED)
    if busy:
        return Verdict(VerdictKind.BUSY)
    if part:
        return Verdict(VerdictKind.PART, used=part[0], total=part[1], released=kind == "released")
    if scale != "paper":
        return Verdict(VerdictKind.OTHER_SCALE)
    if kind == "released":
        return Verdict(VerdictKind.RELEASED, gap_to(published, measured) if published else None, released=True)
    if published is None:
        return Verdict(VerdictKind.NOT_PRINTED)
    if kind == "latency":
        return Verdict(VerdictKind.OTHER_DEVICE)
    if kind == "accuracy" and n < REQUIRED_SEEDS:
        return Verdict(VerdictKind.TOO_FEW_SEEDS, used=n, total=REQUIRED_SEEDS)
    gap = gap_to(published, measured)
    reproduced = abs(gap.amount) <= published.tolerance + ROUNDING
    return Verdict(VerdictKind.REPRODUCED if reproduced else VerdictKind.OFF, gap)


def gap_to(published: Published, measured: float) -> Gap:
    """In the unit of the tolerance: percent of the printed value, or the value's own."""
    gap = measured - published.value
    if published.relative:
        return Gap(100 * gap / published.value, "%")
    return Gap(gap, "" if published.unit == "%" else published.unit)
