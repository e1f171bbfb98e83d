"""The paper's comparisons of methods: Tables 1 to 3, and Table I of the appendix."""

from dataclasses import replace

from bench.experiments.declaration import (
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
    Note,
    PaperTable,
    Row,
    SmallBlock,
    built,
)
from bench.experiments.experiment import experiment
from bench.experiments.notes import (
    ADE20K_NOTES,
    CITYSCAPES_NOTES,
    PER_PIXEL_NOTES,
    SMALL_PER_PIXEL_NOTES,
    SYNTHETIC_NOTES,
    TABLE1_MODELS_NOTES,
    TABLE1_NOTES,
    TABLE2_NOTES,
)
from bench.experiments.small_tables import small_rows

AP_PAN = ACCURACY[3:4]


def comparisons() -> tuple[PaperTable, ...]:
    """Tables 1, 2, 3 (a) and (b), I (a) and (b)."""
    return (
        _table1(),
        _table2(),
        _table3("table3a", "Table 3 (a): semantic segmentation, ADE20K val", "ade20k", ADE20K_NOTES),
        _table3("table3b", "Table 3 (b): semantic segmentation, Cityscapes val", "cityscapes", CITYSCAPES_NOTES),
        _table_ia(),
        _table_ib(),
    )


def _table1() -> PaperTable:
    """Table 1: panoptic segmentation on COCO val2017."""
    rows = (
        Row(1, "Panoptic FCN", "R50", None),
        built(2, "maskformer", "r50"),
        Row(3, "K-Net", "R50", None),
        built(4, "mask2former", "r50"),
        built(5, "hcformer", "r50"),
        built(6, "hcformer+", "r50"),
        built(7, "maskformer", "swin_s"),
        built(8, "mask2former", "swin_s"),
        built(9, "hcformer", "swin_s"),
        built(10, "hcformer+", "swin_s"),
        Row(11, "MaX-DeepLab", "Max-L", None),
        built(12, "maskformer", "swin_l"),
        Row(13, "K-Net", "Swin-L", None),
        built(14, "mask2former", "swin_l"),
        built(15, "hcformer", "swin_l"),
        built(16, "hcformer+", "swin_l"),
    )
    return PaperTable(
        name="table1",
        title="Table 1: panoptic segmentation, COCO val2017",
        dataset="coco_panoptic",
        columns=ACCURACY + COMPLEXITY + LATENCY,
        rows=rows,
        small_blocks=(SmallBlock(small_rows("synthetic_panoptic", len(rows) + 1), ACCURACY, SYNTHETIC_NOTES),),
        notes=TABLE1_NOTES,
    )


def _table2() -> PaperTable:
    """Table 2: instance segmentation on COCO val2017."""
    of_r50 = ("maskformer", "mask2former", "hcformer", "hcformer+")
    of_swin_l = ("mask2former", "hcformer", "hcformer+")
    return PaperTable(
        name="table2",
        title="Table 2: instance segmentation, COCO val2017",
        dataset="coco_instance",
        columns=INSTANCE + COMPLEXITY + LATENCY,
        rows=(
            built(1, "mask_rcnn", "r50", "coco_instance"),
            *(built(number, method, "r50", "coco_instance") for number, method in enumerate(of_r50, start=2)),
            *(
                replace(built(number, method, "swin_l", "coco_instance"), base=6)  # there is no MaskFormer
                for number, method in enumerate(of_swin_l, start=6)
            ),
        ),
        small_blocks=(_table1_models(8, AP_PAN),),
        notes=TABLE2_NOTES,
    )


def _table3(name: str, title: str, dataset: str, notes: tuple[Note, ...]) -> PaperTable:
    """Table 3 (a) or (b): semantic segmentation on ADE20K or Cityscapes."""
    rows = _semantic_rows(dataset)
    return PaperTable(
        name=name,
        title=title,
        dataset=dataset,
        columns=MIOU + FLOPS + LATENCY,
        rows=rows,
        small_blocks=(_table1_models(len(rows), MIOU_PAN),),
        notes=notes,
    )


def _table1_models(rows: int, columns: tuple[Column, ...]) -> SmallBlock:
    """Below so many rows the small models of Table 1, with a metric that is nearer to the table's."""
    return SmallBlock(small_rows("synthetic_panoptic", rows + 1), columns, TABLE1_MODELS_NOTES)


def _semantic_rows(dataset: str) -> tuple[Row, ...]:
    methods = ("maskformer", "mask2former", "hcformer", "hcformer+")
    return (
        *(built(number, method, "r50", dataset) for number, method in enumerate(methods, start=1)),
        built(5, "segformer", "mit_b2", dataset),
        *(built(number, method, "swin_s", dataset) for number, method in enumerate(methods, start=6)),
        built(10, "segformer", "mit_b5", dataset),
        *(built(number, method, "swin_l", dataset) for number, method in enumerate(methods, start=11)),
    )


def _table_ia() -> PaperTable:
    """Table I (a): per-pixel classification on ADE20K."""
    methods = ("pspnet", "hc_pspnet", "deeplabv3", "hc_deeplabv3")
    return _per_pixel("tableIa", "Table I (a): per-pixel classification, ADE20K val", "ade20k", methods)


def _table_ib() -> PaperTable:
    """Table I (b): per-pixel classification on Cityscapes."""
    methods = ("fcn_32s", "fpn", "hc_fcn_32s", "pspnet", "hc_pspnet", "deeplabv3", "hc_deeplabv3")
    plain = experiment("hc_fcn_32s", "small", "synthetic_semantic", "small", downsampling="conv")
    alone = Row(2 * len(methods) + 1, f"{LABELS['hc_fcn_32s']}, convolution", LABELS["small"], plain)
    return _per_pixel("tableIb", "Table I (b): per-pixel classification, Cityscapes val", "cityscapes", methods, alone)


def _per_pixel(name: str, title: str, dataset: str, methods: tuple[str, ...], *more: Row) -> PaperTable:
    """Latencies are compared between a head on clusters and the same head on pixels, where the table has both.

    more: rows of small models that the paper does not have.
    """
    numbered = enumerate(methods, start=len(methods) + 1)
    small = tuple(built(number, method, "small", "synthetic_semantic", "small") for number, method in numbered)
    plain = [method.removeprefix("hc_") for method in methods]
    bases = [methods.index(head) + 1 if f"hc_{head}" in methods else None for head in plain]
    rows = [built(number, method, "r101", dataset) for number, method in enumerate(methods, start=1)]
    return PaperTable(
        name=name,
        title=title,
        dataset=dataset,
        columns=SEMANTIC + LATENCY,
        rows=tuple(replace(row, base=base) for row, base in zip(rows, bases, strict=True)),
        small_blocks=(SmallBlock((*small, *more), SEMANTIC, SMALL_PER_PIXEL_NOTES),),
        notes=PER_PIXEL_NOTES,
    )
