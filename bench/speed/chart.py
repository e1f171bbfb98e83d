"""Pictures of measurements."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.experiments.methods import get_method
from bench.experiments.table import LABELS
from bench.files import whole_file


def draw_speed(flops: Mapping[str, float], samples: Mapping[str, Sequence[float]], device: str, path: Path) -> None:
    """Latency (median and range of samples in ms) against FLOPs in G, one point a method, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for method, times in samples.items():
        middle = statistics.median(times) / 1000
        spread = [[middle - min(times) / 1000], [max(times) / 1000 - middle]]
        ours = get_method(method).clusters
        axes.errorbar(flops[method], middle, spread, fmt="o" if ours else "s", capsize=4, markersize=8,
                      color="tab:blue" if ours else "tab:gray")  # fmt: skip
        left = method == "hcformer"  # HCFormer+ is its neighbour on the right
        axes.annotate(f"{LABELS[method]}\n{middle:.3g} s", (flops[method], middle), (-12 if left else 12, 4),
                      textcoords="offset points", ha="right" if left else "left")  # fmt: skip
    axes.set_xlim(0, 1.25 * max(flops.values()))
    axes.set_ylim(0, 1.2 * max(max(times) for times in samples.values()) / 1000)
    axes.set_xlabel("FLOPs of the network (G, one multiply-add counts one)")
    axes.set_ylabel("latency of the network (s)")
    axes.set_title(f"R50, 800 x 1088, batch 1, {device.upper()}: median and range")
    axes.grid(alpha=0.3)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")
