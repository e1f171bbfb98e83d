"""The paper's ablations of HCFormer: Tables 4 and 5, and Tables II to VII of the appendix."""

from collections.abc import Sequence
from dataclasses import replace

from bench.experiments.declaration import (
    ACCURACY,
    COMPLEXITY,
    FLOPS,
    LABELS,
    LATENCY,
    MIOU,
    MIOU_PAN,
    Column,
    Note,
    PaperTable,
    Row,
    SmallBlock,
    built,
)
from bench.experiments.experiment import Experiment, experiment
from bench.experiments.notes import (
    ABLATION_NOTES,
    DEFORMABLE,
    PLAIN_DOWNSAMPLING_NOTES,
    PQ_NOTES,
    QUERIES_NOTES,
    STANDARD_DECODER_NOTES,
    SWIN_S_NOTES,
)

PQ = ACCURACY[:1]
LEVELS = (0, 1, 2, 3)
LAYERS = (1, 2, 4, 8, 16)
QUERIES = (20, 50, 100, 150, 200)
SMALL_QUERIES = (4, 10, 20, 30, 40)  # a fifth of the paper's: a scene has up to twelve segments
SMALL = ("small", "synthetic_panoptic")


def ablations() -> tuple[PaperTable, ...]:
    """Tables 4, 5, II (a) and (b), III, IV, V, VI, VII."""
    levels, layers = _levels(*SMALL), _layers(*SMALL)
    return (
        _ablation("table4", "Table 4: hierarchical level, COCO val2017", _levels(), levels),
        _ablation("table5", "Table 5: decoder layers, COCO val2017", _layers(), layers),
        _ablation("tableIIa", "Table II (a): hierarchical level with DCNv2, COCO val2017", _levels(), levels),
        _ablation(
            "tableIIb",
            "Table II (b): hierarchical level without DCNv2, COCO val2017",
            _levels(downsampling="conv"),
            _levels(*SMALL, downsampling="conv"),
            notes=PLAIN_DOWNSAMPLING_NOTES,
        ),
        _standard_decoder(),
        _queries(),
        _ablation("tableV", "Table V: hierarchical level, ADE20K val", _levels(dataset="ade20k"), levels, "ade20k"),
        _ablation(
            "tableVI", "Table VI: hierarchical level with Swin-S, COCO val2017", _levels("swin_s"), notes=SWIN_S_NOTES
        ),
        _ablation("tableVII", "Table VII: decoder layers, ADE20K val", _layers(dataset="ade20k"), layers, "ade20k"),
    )


def _ablation(
    name: str,
    title: str,
    rows: Sequence[Row],
    small: Sequence[Row] = (),
    dataset: str = "coco_panoptic",
    notes: tuple[Note, ...] = (DEFORMABLE,),
) -> PaperTable:
    """small: rows of small models; where the paper's are of ADE20K, their mIoU is shown."""
    semantic = dataset == "ade20k"
    columns = (MIOU if semantic else PQ) + COMPLEXITY + LATENCY
    blocks = (_small_block(rows, small, MIOU_PAN if semantic else ACCURACY),) if small else ()
    return PaperTable(name, title, dataset, columns, _compared(rows), blocks, notes)


def _compared(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows, their latencies to be compared with that of the paper's default factors on the same data set."""
    bases = {row.experiment.dataset: row.number for row in rows if _is_default(row.experiment)}
    return tuple(replace(row, base=bases[row.experiment.dataset]) for row in rows)


def _is_default(what: Experiment) -> bool:
    return what == experiment(what.method, what.backbone, what.dataset, what.scale, downsampling=what.downsampling)


def _small_block(rows: Sequence[Row], small: Sequence[Row], columns: tuple[Column, ...] = ACCURACY) -> SmallBlock:
    """The rows of small models, numbered on after the paper's."""
    numbered = tuple(replace(row, number=number) for number, row in enumerate(small, start=len(rows) + 1))
    return SmallBlock(numbered, columns, PQ_NOTES if columns == ACCURACY else ABLATION_NOTES)


def _hcformer(
    number: int, factor: str, backbone: str, dataset: str, method: str = "hcformer", **factors: object
) -> Row:
    """A row of HCFormer (or HCFormer+); `factor` says in words what sets it apart."""
    what = experiment(method, backbone, dataset, "small" if backbone == "small" else "paper", **factors)
    return Row(number, f"{LABELS[method]}, {factor}", LABELS[backbone], what)


def _levels(backbone: str = "r50", dataset: str = "coco_panoptic", **factors: object) -> list[Row]:
    return [
        _hcformer(number, f"level {level}", backbone, dataset, hierarchical_level=level, **factors)
        for number, level in enumerate(LEVELS, start=1)
    ]


def _layers(backbone: str = "r50", dataset: str = "coco_panoptic") -> list[Row]:
    return [
        _hcformer(
            number, f"{layers} decoder layer{'s' if layers > 1 else ''}", backbone, dataset, decoder_layers=layers
        )
        for number, layers in enumerate(LAYERS, start=1)
    ]


def _standard_decoder() -> PaperTable:
    """Table III: MaskFormer's transformer decoder instead of the masked one."""
    ours = experiment("hcformer+", "r50", "coco_panoptic", "paper", transformer_decoder="standard")
    rows = (built(1, "maskformer", "r50"), Row(2, "HCFormer", LABELS["r50"], ours))
    small = [
        _hcformer(0, f"{decoder} decoder", *SMALL, method, transformer_decoder=decoder)
        for method in ("hcformer", "hcformer+")
        for decoder in ("standard", "masked")
    ]
    return PaperTable(
        name="tableIII",
        title="Table III: MaskFormer's transformer decoder, COCO val2017",
        dataset="coco_panoptic",
        columns=PQ + FLOPS + LATENCY,
        rows=rows,
        small_blocks=(_small_block(rows, [built(0, "maskformer", *SMALL, "small"), *small]),),
        notes=STANDARD_DECODER_NOTES,
    )


def _queries() -> PaperTable:
    """Table IV: number of queries on three data sets."""
    semantic = ("ade20k", "cityscapes")
    settings = [(dataset, queries) for dataset in ("coco_panoptic", *semantic) for queries in QUERIES]
    rows = _compared([
        _hcformer(number, f"{LABELS[dataset]}, {queries} queries", "r50", dataset, num_queries=queries)
        for number, (dataset, queries) in enumerate(settings, start=1)
    ])  # fmt: skip
    small = [_hcformer(0, f"{queries} queries", *SMALL, num_queries=queries) for queries in SMALL_QUERIES]
    return PaperTable(
        name="tableIV",
        title="Table IV: queries, COCO val2017, ADE20K val and Cityscapes val",
        dataset="coco_panoptic",
        columns=(replace(*PQ, datasets=("coco_panoptic",)), replace(*MIOU, datasets=semantic), *LATENCY),
        rows=rows,
        small_blocks=(_small_block(rows, small),),
        notes=QUERIES_NOTES,
    )
