"""The paper's ablations of HCFormer: Tables 4 and 5, and Tables II to VII of the appendix."""

from collections.abc import Iterable
from dataclasses import replace

from bench.experiments.declaration import ACCURACY, COMPLEXITY, FLOPS, LABELS, MIOU, Note, PaperTable, Row, built
from bench.experiments.experiment import experiment
from bench.experiments.notes import (
    DEFORMABLE,
    PLAIN_DOWNSAMPLING_NOTES,
    QUERIES_NOTES,
    STANDARD_DECODER_NOTES,
    SWIN_S_NOTES,
)

PQ = ACCURACY[:1]
LEVELS = (0, 1, 2, 3)
LAYERS = (1, 2, 4, 8, 16)
QUERIES = (20, 50, 100, 150, 200)


def ablations() -> tuple[PaperTable, ...]:
    """Tables 4, 5, II (a) and (b), III, IV, V, VI, VII."""
    return (
        _ablation("table4", "Table 4: hierarchical level, COCO val2017", _levels()),
        _ablation("table5", "Table 5: decoder layers, COCO val2017", _layers()),
        _ablation("tableIIa", "Table II (a): hierarchical level with DCNv2, COCO val2017", _levels()),
        _ablation(
            "tableIIb",
            "Table II (b): hierarchical level without DCNv2, COCO val2017",
            _levels(downsampling="conv"),
            notes=PLAIN_DOWNSAMPLING_NOTES,
        ),
        _standard_decoder(),
        _queries(),
        _ablation("tableV", "Table V: hierarchical level, ADE20K val", _levels(dataset="ade20k"), "ade20k"),
        _ablation(
            "tableVI", "Table VI: hierarchical level with Swin-S, COCO val2017", _levels("swin_s"), notes=SWIN_S_NOTES
        ),
        _ablation("tableVII", "Table VII: decoder layers, ADE20K val", _layers("ade20k"), "ade20k"),
    )


def _ablation(
    name: str,
    title: str,
    rows: Iterable[Row],
    dataset: str = "coco_panoptic",
    notes: tuple[Note, ...] = (DEFORMABLE,),
) -> PaperTable:
    columns = (MIOU if dataset == "ade20k" else PQ) + COMPLEXITY
    return PaperTable(name, title, dataset, columns, tuple(rows), small_blocks=(), notes=notes)


def _hcformer(number: int, factor: str, backbone: str, dataset: str, **factors) -> Row:
    """A row of HCFormer; `factor` says in words what sets it apart."""
    what = experiment("hcformer", backbone, dataset, "paper", **factors)
    return Row(number, f"HCFormer, {factor}", LABELS[backbone], what)


def _levels(backbone: str = "r50", dataset: str = "coco_panoptic", **factors) -> Iterable[Row]:
    for number, level in enumerate(LEVELS, start=1):
        yield _hcformer(number, f"level {level}", backbone, dataset, hierarchical_level=level, **factors)


def _layers(dataset: str = "coco_panoptic") -> Iterable[Row]:
    for number, layers in enumerate(LAYERS, start=1):
        words = f"{layers} decoder layer{'s' if layers > 1 else ''}"
        yield _hcformer(number, words, "r50", dataset, decoder_layers=layers)


def _standard_decoder() -> PaperTable:
    """Table III: MaskFormer's transformer decoder instead of the masked one."""
    ours = experiment("hcformer+", "r50", "coco_panoptic", "paper", transformer_decoder="standard")
    return PaperTable(
        name="tableIII",
        title="Table III: MaskFormer's transformer decoder, COCO val2017",
        dataset="coco_panoptic",
        columns=PQ + FLOPS,
        rows=(built(1, "maskformer", "r50"), Row(2, "HCFormer", LABELS["r50"], ours)),
        small_blocks=(),
        notes=STANDARD_DECODER_NOTES,
    )


def _queries() -> PaperTable:
    """Table IV: number of queries on three data sets."""
    semantic = ("ade20k", "cityscapes")
    settings = [(dataset, queries) for dataset in ("coco_panoptic", *semantic) for queries in QUERIES]
    return PaperTable(
        name="tableIV",
        title="Table IV: queries, COCO val2017, ADE20K val and Cityscapes val",
        dataset="coco_panoptic",
        columns=(replace(*PQ, datasets=("coco_panoptic",)), replace(*MIOU, datasets=semantic)),
        rows=tuple(
            _hcformer(number, f"{LABELS[dataset]}, {queries} queries", "r50", dataset, num_queries=queries)
            for number, (dataset, queries) in enumerate(settings, start=1)
        ),
        small_blocks=(),
        notes=QUERIES_NOTES,
    )
