"""Cases of the paper's claims: the same relation with each backbone, data set or factor."""

from bench.experiments.claim import Case

BACKBONES = {"R50": "r50", "Swin-S": "swin_s", "Swin-L": "swin_l"}
# "Comparable" and "saturated" mean apart by no more than a reproduction may be: the tolerances of results/published.
# Exception: HC-PSPNet and HC-DeepLabv3, 0.5 on ADE20K too: what their text calls "comparable" differs by 0.1.
COCO, ADE20K, CITYSCAPES = 0.5, 1.0, 0.5


def of_methods(
    table: str, a: str, b: str, metric: str, margin: float = 0.0, of: str = "", only=BACKBONES
) -> list[Case]:
    """Two methods of a table with each backbone; `of` stands before the backbone's name."""
    pairs = {name: tuple(f"{table}/{method}-{BACKBONES[name]}" for method in (a, b)) for name in only}
    return [Case(f"{of} {name}".strip(), metric, rows, margin) for name, rows in pairs.items()]


def against_others(table: str, metric: str, margin: float, of: str, pairs) -> list[Case]:
    """HCFormer with a backbone against another method with its own: (backbone, method, backbone)."""
    return [
        Case(f"{of} {name}, {method}{'' if own == name else ' ' + own}".strip(), metric,
             (f"{table}/hcformer-{BACKBONES[name]}", f"{table}/{method}-{own}"), margin)
        for name, method, own in pairs
    ]  # fmt: skip


def synthetic(metric: str, *rows: str, margin: float = 0.0, label: str = "small", minus=()) -> Case:
    return Case(label, metric, rows, margin, minus)


def small_models(a: str, b: str, metric: str, margin: float = 0.0, of: str = "") -> Case:
    """Two methods of Table 1's small models."""
    return synthetic(metric, *(f"table1/{m}-small" for m in (a, b)), margin=margin, label=f"small {of}".strip())


def small_real(a: str, b: str, dataset: str, margin: float = 0.0) -> Case:
    metric, label = {"camvid": ("mIoU", "small CamVid"), "nuclei": ("PQ", "small nuclei")}[dataset]
    return Case(label, metric, tuple(f"small_real/{m}-small-{dataset}" for m in (a, b)), margin)


def series(table: str, start: str, values, metric: str, label: str, margin: float = 0.0) -> Case:
    """Rows of one table that differ in one factor, e.g. `hcformer-r50-level` 0, 1, 2, 3."""
    return Case(label, metric, tuple(f"{table}/{start}{value}" for value in values), margin)


def panoptic(a: str, b: str) -> tuple[Case, ...]:
    return (*of_methods("table1", a, b, "PQ"), small_models(a, b, "PQ"), small_real(a, b, "nuclei"))


def instances(a: str, b: str, only=("R50", "Swin-L")) -> tuple[Case, ...]:
    return (*of_methods("table2", a, b, "AP", only=only), small_models(a, b, "AP_pan_th"))


def semantic(a: str, b: str) -> tuple[Case, ...]:
    return (
        *of_methods("table3a", a, b, "mIoU", of="ADE20K"),
        *of_methods("table3b", a, b, "mIoU", of="Cityscapes"),
        small_models(a, b, "mIoU_pan"),
        small_real(a, b, "camvid"),
    )
