"""The committed counts against those of the reference implementations, by the same rules: every row that they have."""

from pathlib import Path

import pytest

from bench.experiments import find_row
from bench.experiments.tables import TABLES
from bench.records import Store

STORE = Store(Path(__file__).resolve().parents[2] / "results" / "reference")
DCNV2 = 38.39 - 38.12, 87.9 - 86.9  # what DCNv2 adds on COCO; the layers were counted without it


def _with_dcnv2(params: float, flops: float, more: tuple[float, float] = DCNV2) -> tuple[float, float]:
    return params + more[0], flops + more[1]


# Row -> parameters in M and GFLOPs.
COUNTS = {
    "table4/hcformer-r50-level0": (37.42, 81.7),
    "table4/hcformer-r50-level1": (37.97, 82.6),
    "table4/hcformer-r50-level2": (38.25, 84.3),
    "table4/hcformer-r50-level3": (38.39, 87.9),
    "tableIIb/hcformer-r50-level1": (37.82, 82.5),
    "tableIIb/hcformer-r50-level2": (38.02, 83.9),
    "tableIIb/hcformer-r50-level3": (38.12, 86.9),
    "table5/hcformer-r50-layers1": _with_dcnv2(27.07, 84.6),
    "table5/hcformer-r50-layers2": _with_dcnv2(28.64, 85.0),
    "table5/hcformer-r50-layers4": _with_dcnv2(31.80, 85.6),
    "table5/hcformer-r50-layers16": _with_dcnv2(50.75, 89.6),
    "table1/hcformer+-r50": (45.82, 96.8),
    "tableIII/hcformer+-r50": (47.37, 97.9),
    "table1/maskformer-r50": (45.01, 180.4),
    "table1/mask2former-r50": (43.98, 229.8),
    "table2/mask2former-r50": (43.98, 226.2),
    "tableVI/hcformer-swin_s-level0": (62.14, 172.2),
    "tableVI/hcformer-swin_s-level1": (62.29, 172.5),
    "tableVI/hcformer-swin_s-level2": (62.37, 173.1),
    "tableVI/hcformer-swin_s-level3": (62.41, 174.2),
    "table1/hcformer+-swin_s": (70.17, 183.5),
    "table1/maskformer-swin_s": (63.07, 258.4),
    "table1/mask2former-swin_s": (68.75, 316.5),
    "table1/hcformer-swin_l": (209.47, 718.6),
    "table1/hcformer+-swin_l": (217.04, 727.7),
    "table1/maskformer-swin_l": (211.57, 794.2),
    "table1/mask2former-swin_l": (215.54, 876.9),
    "tableV/hcformer-r50-level0": (37.42, 27.7),
    "tableV/hcformer-r50-level1": (37.98, 28.0),
    "tableV/hcformer-r50-level2": (38.25, 28.5),
    "tableV/hcformer-r50-level3": (38.39, 29.5),
    "tableVII/hcformer-r50-layers1": _with_dcnv2(27.07, 27.7, (0.27, 0.2)),
    "tableVII/hcformer-r50-layers2": _with_dcnv2(28.65, 28.0, (0.27, 0.2)),
    "tableVII/hcformer-r50-layers4": _with_dcnv2(31.81, 28.4, (0.27, 0.2)),
    "tableVII/hcformer-r50-layers16": _with_dcnv2(50.75, 31.0, (0.27, 0.2)),
    "table3a/hcformer+-r50": (45.82, 31.6),
    "table3a/hcformer-swin_s": (62.41, 56.1),
    "table3a/hcformer+-swin_s": (70.17, 58.3),
    "table3a/hcformer-swin_l": (209.43, 337.9),
    "table3a/hcformer+-swin_l": (216.99, 341.4),
    "table3a/maskformer-r50": (41.25, 55.2),
    "table3a/maskformer-swin_s": (63.07, 81.1),
    "table3a/maskformer-swin_l": (211.58, 378.0),
    "table3a/mask2former-r50": (43.99, 70.8),
    "table3a/mask2former-swin_s": (68.76, 97.5),
    "table3a/mask2former-swin_l": (215.49, 402.6),
    "table3b/hcformer-r50": (39.94, 198.1),
    "table3b/hcformer+-r50": (47.37, 226.2),
    "table3b/hcformer-swin_s": (63.96, 397.4),
    "table3b/hcformer+-swin_s": (71.72, 426.1),
    "table3b/hcformer-swin_l": (210.97, 1577.6),
    "table3b/hcformer+-swin_l": (218.54, 1606.0),
    "table3b/maskformer-r50": (41.22, 405.2),
    "table3b/maskformer-swin_s": (63.04, 599.3),
    "table3b/maskformer-swin_l": (211.54, 1784.1),
    "table3b/mask2former-r50": (44.01, 526.6),
    "table3b/mask2former-swin_s": (68.72, 726.8),
    "table3b/mask2former-swin_l": (215.46, 1908.0),
}
FAMILY = ("hcformer", "hcformer+", "maskformer", "mask2former")


@pytest.mark.parametrize("row", COUNTS)
def test_counts_are_the_references(row):
    metrics, (params, flops) = STORE.get(find_row(row), "complexity").metrics, COUNTS[row]
    assert metrics["params"]["value"] == pytest.approx(params, rel=2e-3)
    assert metrics["flops"]["value"] == pytest.approx(flops, rel=1.5e-2)


def test_no_counted_row_is_forgotten():
    """But instance models, of which the reference's list has Mask2Former alone."""
    counted = {
        row.experiment
        for table in TABLES.values()
        for row in table.rows
        if row.experiment
        and row.experiment.method in FAMILY
        and {"params", "flops"} & {c.metric for c in table.columns}
    }
    missing = counted - {find_row(row) for row in COUNTS}
    assert {e.dataset for e in missing} == {"coco_instance"} and len(missing) == 6
