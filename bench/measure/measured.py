"""`Measured`: what every measurer returns, and all that a record needs of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.experiments.recipe import Recipe


@dataclass(frozen=True)
class Measured:
    """metrics, samples and details as `bench.records.Record` holds them; recipe: of a training alone.

    seconds: wall time that it took, of all parts of a run that was killed and went on.
    """

    metrics: Mapping[str, Mapping]
    seconds: float
    details: Mapping
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    recipe: Recipe | None = None
