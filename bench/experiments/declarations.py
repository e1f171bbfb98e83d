"""What of the tables does not stand in their files: titles, columns, the small models below them, and their notes.

A table is a file `results/published/<name>.csv` and an entry here. Notes are named as in `notes.toml` beside the files.
"""

from dataclasses import dataclass, replace

from bench.experiments.published import PrintedRow
from bench.experiments.table import (
    ACCURACY,
    COMPLEXITY,
    FLOPS,
    INSTANCE,
    LABELS,
    LATENCY,
    MIOU,
    MIOU_PAN,
    SEMANTIC,
    Column,
)

PQ = ACCURACY[:1]
AP_PAN = ACCURACY[3:4]


@dataclass(frozen=True)
class SmallModels:
    """A block of small models below a table.

    like_table: first the table's own rows, with the small backbone on this data set. rows: those that follow.
    """

    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    rows: tuple[PrintedRow, ...] = ()
    like_table: bool = False
    dataset: str = "synthetic_panoptic"


@dataclass(frozen=True)
class Declaration:
    """dataset: of the rows that name none in their factors. printed: the paper has the table, and it has a file."""

    title: str
    dataset: str
    columns: tuple[Column, ...]
    small: tuple[SmallModels, ...] = ()
    notes: tuple[str, ...] = ()
    printed: bool = True


def _small(method: str, more: str = "", words: str = "", factors: str = "") -> PrintedRow:
    """A row of a small model; `more` follows the backbone in its name, `words` its label, to tell it apart."""
    label = LABELS[method] + (f", {words}" if words else "")
    return PrintedRow(f"{method}-small{more}", label, LABELS["small"], factors)


COMPARED = ("maskformer", "mask2former", "hcformer", "hcformer+")
SMALL_METHODS = tuple(_small(method) for method in COMPARED)
SMALL_DECODERS = tuple(
    _small(method, f"-{decoder}", f"{decoder} decoder", f"transformer_decoder={decoder}")
    for method in ("hcformer", "hcformer+")
    for decoder in ("standard", "masked")
)
SMALL_QUERIES = tuple(  # a fifth of the paper's: a scene has up to twelve segments
    _small("hcformer", f"-queries{queries}", f"{queries} queries", f"num_queries={queries}")
    for queries in (4, 10, 20, 30, 40)
)
SMALL_PLAIN_FCN = _small("hc_fcn_32s", "-conv", "convolution", "downsampling=conv")

ABLATION_NOTES = ("chosen_for_table1", "confidence")
SMALL_ABLATION = SmallModels(ACCURACY, ABLATION_NOTES, like_table=True)
SMALL_SEMANTIC_ABLATION = SmallModels(MIOU_PAN, ("chosen_for_table1",), like_table=True)
SMALL_PER_PIXEL = SmallModels(
    SEMANTIC,
    ("small_per_pixel_scenes", "small_per_pixel_strides", "small_per_pixel_downsampling"),
    like_table=True,
    dataset="synthetic_semantic",
)
PER_PIXEL_NOTES = ("per_pixel_recipe", "per_pixel_downsampling", "aspp_dilations", "printed_latencies")


def _small_real(dataset: str, columns: tuple[Column, ...], *notes: str) -> SmallModels:
    rows = tuple(_small(method, f"-{dataset}") for method in COMPARED)
    return SmallModels(columns, ("limits_of_small_real", *notes), rows, dataset=dataset)


def _comparison(
    title: str, dataset: str, columns: tuple[Column, ...], small: tuple[Column, ...], *notes: str
) -> Declaration:
    """A table of methods; below it Table 1's small models, with a metric that is nearer to the table's."""
    block = SmallModels(small, ("see_table1",), SMALL_METHODS)
    return Declaration(title, dataset, columns + LATENCY, (block,), notes)


def _ablation(title: str, dataset: str, *notes: str, small: SmallModels | None = SMALL_ABLATION) -> Declaration:
    columns = (PQ if dataset == "coco_panoptic" else MIOU) + COMPLEXITY + LATENCY
    return Declaration(title, dataset, columns, (small,) if small else (), notes)


DECLARATIONS: dict[str, Declaration] = {
    "table1": Declaration(
        "Table 1: panoptic segmentation, COCO val2017", "coco_panoptic", ACCURACY + COMPLEXITY + LATENCY,
        (SmallModels(ACCURACY, ("confidence", "no_ranking"), SMALL_METHODS),),
        ("longer_schedule", "plain_downsampling_table1", "mask2former_without_einsum", "hcformer_swin_s",
         "every_prediction_table1", "plain_attention", "skipped_predictions_table1"),
    ),
    "table2": _comparison(
        "Table 2: instance segmentation, COCO val2017", "coco_instance", INSTANCE + COMPLEXITY, AP_PAN,
        "mask_rcnn_not_trained", "mask_rcnn_work", "mask_rcnn_not_timed", "instance_models", "plain_downsampling",
        "every_prediction", "plain_attention", "skipped_predictions",
    ),
    "table3a": _comparison(
        "Table 3 (a): semantic segmentation, ADE20K val", "ade20k", MIOU + FLOPS, MIOU_PAN,
        "segformer_not_trained", "segformer_ade20k", "last_prediction_ade20k", "mask2former_ade20k",
        "plain_downsampling", "plain_attention", "skipped_predictions",
    ),
    "table3b": _comparison(
        "Table 3 (b): semantic segmentation, Cityscapes val", "cityscapes", MIOU + FLOPS, MIOU_PAN,
        "segformer_not_trained", "segformer_cityscapes", "nine_layers", "plain_downsampling", "every_prediction",
        "plain_attention", "skipped_predictions",
    ),
    "tableIa": Declaration(
        "Table I (a): per-pixel classification, ADE20K val", "ade20k", SEMANTIC + LATENCY, (SMALL_PER_PIXEL,),
        PER_PIXEL_NOTES,
    ),
    "tableIb": Declaration(
        "Table I (b): per-pixel classification, Cityscapes val", "cityscapes", SEMANTIC + LATENCY,
        (replace(SMALL_PER_PIXEL, rows=(SMALL_PLAIN_FCN,)),), PER_PIXEL_NOTES,
    ),
    "table4": _ablation("Table 4: hierarchical level, COCO val2017", "coco_panoptic", "plain_downsampling"),
    "table5": _ablation("Table 5: decoder layers, COCO val2017", "coco_panoptic", "plain_downsampling"),
    "tableIIa": _ablation(
        "Table II (a): hierarchical level with DCNv2, COCO val2017", "coco_panoptic", "plain_downsampling"
    ),
    "tableIIb": _ablation(
        "Table II (b): hierarchical level without DCNv2, COCO val2017", "coco_panoptic", "convolutions"
    ),
    "tableIII": Declaration(
        "Table III: MaskFormer's transformer decoder, COCO val2017", "coco_panoptic", PQ + FLOPS + LATENCY,
        (SmallModels(ACCURACY, ABLATION_NOTES, (_small("maskformer"), *SMALL_DECODERS)),),
        ("longer_schedule", "table3_is_plus", "plain_downsampling", "every_prediction", "skipped_predictions"),
    ),
    "tableIV": Declaration(
        "Table IV: queries, COCO val2017, ADE20K val and Cityscapes val", "coco_panoptic",
        (replace(*PQ, datasets=("coco_panoptic",)), replace(*MIOU, datasets=("ade20k", "cityscapes")), *LATENCY),
        (SmallModels(ACCURACY, ABLATION_NOTES, SMALL_QUERIES),), ("nine_layers_cityscapes",),
    ),
    "tableV": _ablation(
        "Table V: hierarchical level, ADE20K val", "ade20k", "plain_downsampling", small=SMALL_SEMANTIC_ABLATION
    ),
    "tableVI": _ablation(
        "Table VI: hierarchical level with Swin-S, COCO val2017", "coco_panoptic", "no_small_swin",
        "hcformer_swin_s_levels", small=None,
    ),
    "tableVII": _ablation(
        "Table VII: decoder layers, ADE20K val", "ade20k", "plain_downsampling", small=SMALL_SEMANTIC_ABLATION
    ),
    "small_real": Declaration(
        "Small real data: CamVid and nuclei", "camvid", (),
        (_small_real("camvid", SEMANTIC, "camvid_recipe"),
         _small_real("nuclei", ACCURACY, "nuclei_recipe", "nuclei_split")),
        printed=False,
    ),
}  # fmt: skip
