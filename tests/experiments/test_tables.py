"""The tables as declared, against the published numbers; Table 1 against the paper's text too."""

import ast
import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.experiments import TABLES, experiment, find_row, get_table, recipe_for
from bench.experiments.methods import METHODS, get_method
from bench.experiments.published import PUBLISHED, load_published
from bench.experiments.tables import latency_bases, row_names

PRINTED = [table for table in TABLES.values() if table.rows]
ALL_PRINTED = pytest.mark.parametrize("table", PRINTED, ids=[table.name for table in PRINTED])
# Rows ("table row") of one experiment: counted and trained once, under one key.
SHARED = (
    "table1 5, table4 4, table5 4, tableIIa 4, tableIV 3",
    "table1 2, tableIII 1",
    "table1 9, tableVI 4",
    "table4 1, tableIIa 1, tableIIb 1",
    "table4 2, tableIIa 2",
    "table4 3, tableIIa 3",
    "table4 5, tableIIa 5, tableIIb 5, tableV 5",
    "table1 19, table2 11, table3a 17, table3b 17, table4 8, tableIIa 8, tableIII 5, tableIV 18, tableV 8",
    "table1 17, tableIII 3",
    "table5 6, tableVII 6",
    "table3a 3, tableV 4, tableVII 4, tableIV 8",
    "table3b 3, tableIV 13",
)
# Numbers of counts, of timings, of trainings at paper scale (three seeds of every row with a recipe) and of
# trainings at small scale (three seeds of every small row).
MEASURED = {
    "table2": (8, 7, 21, 12),
    "table3a": (14, 14, 36, 12),
    "table3b": (14, 14, 36, 12),
    "table4": (4, 4, 12, 12),
    "table5": (5, 5, 15, 15),
    "tableIa": (0, 4, 12, 12),
    "tableIb": (0, 7, 21, 24),
    "tableIIa": (4, 4, 12, 12),
    "tableIIb": (4, 4, 12, 12),
    "tableIII": (2, 2, 6, 15),
    "tableIV": (0, 15, 45, 15),
    "tableV": (4, 4, 12, 12),
    "tableVI": (4, 4, 12, 0),
    "tableVII": (5, 5, 15, 15),
}
METRICS = ("PQ", "PQ_th", "PQ_st", "AP_pan_th", "mIoU_pan", "params", "flops")


@pytest.fixture(scope="module")
def paper_rows(shared):
    text = (shared / "paper" / "hcformer.txt").read_text(encoding="utf-8")
    block = text[text.index("Table 1: Evaluation results") :].split("\n\n")[1]
    return [line.split("\t") for line in block.splitlines()[1:]]


def test_sixteen_rows_in_the_papers_order(paper_rows):
    table = get_table("table1")
    declared = [(row.method.lower(), row.backbone) for row in table.rows]
    assert declared == [(re.sub(r"\[\d+\]", "", line[0]).lower(), line[1]) for line in paper_rows]
    assert [row.number for row in table.rows] == list(range(1, 17))
    assert [row.number for row in table.rows if row.experiment is None] == [1, 3, 11, 13]


def test_every_published_number_is_the_papers(paper_rows):
    expected = {
        (number, metric): float(text.rstrip("MG"))
        for number, line in enumerate(paper_rows, start=1)
        for metric, text in zip(METRICS, line[2:], strict=True)
        if text != "-"
    }
    assert {cell: published.value for cell, published in load_published("table1").items()} == expected


@ALL_PRINTED
def test_published_file_agrees_with_the_declaration(table):
    units = {column.metric: column.unit for column in table.columns}
    rows = {row.number: row for row in table.rows}
    assert list(rows) == list(range(1, len(rows) + 1))
    with open(PUBLISHED / f"{table.name}.csv", encoding="utf-8", newline="") as file:
        entries = list(csv.DictReader(file))
    for entry in entries:
        row = rows[int(entry["row"])]
        assert (entry["method"], entry["backbone"]) == (row.method, row.backbone)
        assert entry["unit"] == units[entry["metric"]] and entry["basis"]
    assert {int(entry["row"]) for entry in entries} == set(rows)
    printed = {entry["metric"] for entry in entries}
    assert {metric for metric in units if not metric.startswith("latency") or metric in printed} == printed


def test_every_published_file_is_declared_and_the_reverse():
    assert {table.name for table in PRINTED} == {path.stem for path in PUBLISHED.glob("*.csv")}


@ALL_PRINTED
def test_row_labels_match_their_experiments(table):
    """A row says its method, backbone and factor as its experiment has them; Table III's name is the paper's own."""
    datasets = {"COCO": "coco_panoptic", "ADE20K": "ade20k", "Cityscapes": "cityscapes"}
    for row in (row for row in table.rows if row.experiment):
        what = row.experiment
        method, *words = row.method.split(", ")
        expected = "hcformer" if table.name == "tableIII" and row.number == 2 else what.method
        assert re.sub("[- +]", "", method.lower()) == re.sub("[_+]", "", expected)
        assert row.backbone.lower().replace("-", "_") == what.backbone and what.scale == "paper"
        if table.name != "tableIII":
            assert method.endswith("+") == what.method.endswith("+")
        assert what.dataset == datasets.get(words[0] if words else None, table.dataset)
        for word in words:
            if number := re.fullmatch(r"(?:level )?(\d+)( decoder layers?| queries)?", word):
                factor = {None: "hierarchical_level", " queries": "num_queries"}.get(number[2], "decoder_layers")
                assert getattr(what, factor) == int(number[1])


def test_downsampling_and_decoder_of_the_ablations():
    downsampling = {
        name: [row.experiment.downsampling for row in get_table(name).rows] for name in ("tableIIa", "tableIIb")
    }
    assert downsampling == {"tableIIa": ["conv"] + 3 * ["deformable"], "tableIIb": 4 * ["conv"]}
    ours = get_table("tableIII").rows[1].experiment
    assert (ours.transformer_decoder, ours.decoder_layers, ours.encoder_layers) == ("standard", 9, 6)
    layers = {e.dataset: e.decoder_layers for e in (row.experiment for row in get_table("tableIV").rows)}
    assert layers == {"coco_panoptic": 8, "ade20k": 8, "cityscapes": 9}


@pytest.mark.parametrize("cells", SHARED)
def test_one_experiment_has_one_key_in_all_tables(cells):
    places = [cell.split() for cell in cells.split(", ")]
    tables = {name: get_table(name) for name, _ in places}
    rows = {(name, row.number): row for name, table in tables.items() for row in (*table.rows, *table.small_rows)}
    assert len({rows[name, int(number)].experiment.key for name, number in places}) == 1


def test_different_experiments_have_different_keys():
    instance, panoptic = (
        get_table(name).rows[number - 1].experiment for name, number in (("table2", 4), ("table1", 5))
    )
    plain, deformable = (get_table(name).rows[3].experiment for name in ("tableIIb", "tableIIa"))
    assert len({e.key for e in (instance, panoptic, plain, deformable)}) == 3  # Table II (a) has Table 1's row


def test_measurements():
    table = get_table("table1")
    small, paper = table.measurements(), table.measurements("paper")
    assert [sum(m.kind == k for m in small) for k in ("complexity", "latency", "accuracy")] == [12, 12, 12]
    assert [sum(m.kind == k for m in paper) for k in ("complexity", "latency", "accuracy")] == [12, 12, 36]
    assert {m.experiment.scale for m in small if m.kind == "accuracy"} == {"small"}
    assert len(set(small)) == len(small)
    with pytest.raises(BenchError, match="unknown scale"):
        table.measurements("tiny")


@pytest.mark.parametrize("name", MEASURED)
def test_measurements_of_a_table_are_those_of_its_columns(name):
    table = get_table(name)
    small, paper = table.measurements(), table.measurements("paper")
    counted = [sum(m.kind == kind for m in paper) for kind in ("complexity", "latency", "accuracy")]
    assert (*counted, sum(m.kind == "accuracy" for m in small)) == MEASURED[name]
    assert [m for m in small if m.kind != "accuracy"] == [m for m in paper if m.kind != "accuracy"]
    assert {m.experiment.scale for m in small if m.kind == "accuracy"} <= {"small"}
    assert not any(get_method(m.experiment.method).trained is False for m in paper if m.kind == "accuracy")


def test_latency_bases_are_those_of_all_tables():
    """Level 0 stands in Tables 4 and II a beside level 3, and in Table II b beside level 3 with plain convolutions."""
    level_0, level_3 = get_table("table4").rows[0].experiment, get_table("table4").rows[3].experiment
    plain = get_table("tableIIb").rows[3].experiment
    maskformer = get_table("table1").base_of(next(r for r in get_table("table1").rows if r.experiment == level_3))
    assert latency_bases(level_0) == (level_3, plain)
    assert latency_bases(level_3) == (maskformer.experiment,), "not itself, which the ablations compare with"
    assert latency_bases(plain) == latency_bases(maskformer.experiment) == ()


def test_what_is_counted_only_is_neither_timed_nor_trained(monkeypatch):
    monkeypatch.setitem(METHODS, "mask2former", replace(METHODS["mask2former"], timed=False, trained=False))
    table = get_table("table1")
    kinds = {m.kind for m in table.measurements("paper") if m.experiment.method == "mask2former"}
    assert kinds == {"complexity"}
    swin_l = next(r.experiment for r in get_table("table2").rows if r.experiment and r.backbone == "Swin-L")
    assert latency_bases(swin_l) == ()


@ALL_PRINTED
def test_what_latencies_are_compared_with(table):
    """MaskFormer with the same backbone; in ablations the paper's default; for heads on clusters the one on pixels."""
    for row in (row for row in table.rows if row.experiment):
        base, what = table.base_of(row), row.experiment
        if base is None:
            assert get_method(what.method).predicts == "pixels"
            assert not what.method.startswith("hc_")
            continue
        other = base.experiment
        assert (other.dataset, other.backbone) == (what.dataset, what.backbone)
        assert table.base_of(base) == base and other in (*latency_bases(what), what)
        if other.method == "maskformer":
            continue
        if (table.name, what.backbone) == ("table2", "swin_l"):  # which has no MaskFormer
            assert other.method == "mask2former"
            continue
        if get_method(what.method).predicts == "pixels":
            assert what.method.removeprefix("hc_") == other.method
        else:
            layers = 9 if what.dataset == "cityscapes" else 8
            assert (other.hierarchical_level, other.decoder_layers, other.num_queries) == (3, layers, 100)


def test_a_session_reproduces_every_table():
    path = Path(__file__).parents[2] / "noxfile.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {"__file__": str(path), "Path": Path}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("PUBLISHED", "PAPER_TABLES"):
            exec(ast.unparse(node), names)
    assert names["PAPER_TABLES"] == [
        *("table1", "table2", "table3a", "table3b", "table4", "table5", "tableIa", "tableIb", "tableIIa", "tableIIb"),
        *("tableIII", "tableIV", "tableV", "tableVI", "tableVII"),
    ]
    assert set(names["PAPER_TABLES"]) == {table.name for table in PRINTED}


def test_unknown_table_names_the_nearest():
    with pytest.raises(BenchError, match="unknown table 'tabel1': did you mean 'table1'"):
        get_table("tabel1")


def test_rows_by_name():
    table = get_table("table1")
    assert find_row("table1/hcformer-r50") == table.rows[4].experiment
    assert find_row("table1/hcformer+-swin_l") == table.rows[15].experiment
    assert find_row("table1/hcformer-small") == table.small_rows[2].experiment
    with pytest.raises(BenchError, match="K-Net of table1/knet-swin_l is not built here"):
        find_row("table1/knet-swin_l")


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_row_has_one_name(table):
    names = row_names(table)
    built = {row.experiment for row in (*table.rows, *table.small_rows) if row.experiment}
    assert set(names.values()) == built and len(names) == len(built)
    assert all(find_row(f"{table.name}/{name}") == e for name, e in names.items())
    rows = (*table.rows, *table.small_rows)
    assert len({row.name for row in rows}) == len(rows)
    for row in (row for row in rows if row.experiment):
        assert f"{row.name}-".startswith(f"{row.experiment.method}-{row.experiment.backbone}-")


def test_rows_of_several_data_sets_are_named_apart():
    for dataset in ("camvid", "nuclei"):
        assert find_row(f"small_real/hcformer-small-{dataset}") == experiment("hcformer", "small", dataset, "small")
    with pytest.raises(BenchError, match="unknown row of small_real 'hcformer-small': did you mean 'hcformer-small-"):
        find_row("small_real/hcformer-small")


def test_rows_of_ablations_are_named_by_their_factor():
    for name, number in {
        "table4/hcformer-r50-level0": 1,
        "table5/hcformer-r50-layers16": 5,
        "tableIIb/hcformer-r50-level3": 4,
        "tableIII/hcformer+-r50": 2,
        "tableIV/hcformer-r50-coco_panoptic-queries20": 1,
        "tableIV/hcformer-r50-cityscapes-queries200": 15,
        "tableVI/hcformer-swin_s-level2": 3,
        "tableVII/hcformer-r50-layers8": 4,
        "tableIb/hc_pspnet-r101": 5,
        "tableIII/hcformer+-small-masked": 7,
        "tableIIb/hcformer-small-level1": 6,
        "tableIV/hcformer-small-queries40": 20,
    }.items():
        table = get_table(name.split("/")[0])
        assert find_row(name) == (*table.rows, *table.small_rows)[number - 1].experiment
    with pytest.raises(BenchError, match="unknown row of table4 'hcformer-r50-level4': did you mean 'hcformer-r50-lev"):
        find_row("table4/hcformer-r50-level4")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table1/hcformer-r500", "unknown row of table1 'hcformer-r500': did you mean 'hcformer-r50'"),
        ("table1", "'table1' names no row of a table: write TABLE/METHOD-BACKBONE"),
        ("tabel1/hcformer-r50", "unknown table 'tabel1': did you mean 'table1'"),
    ],
)
def test_unknown_row(name, message):
    with pytest.raises(BenchError, match=message):
        find_row(name)


def test_a_table_with_another_backbone_has_its_methods_with_that_alone():
    table = get_table("table1@timm:convnext_tiny")
    assert (table.name, table.file_name) == ("table1@timm:convnext_tiny", "table1@timm_convnext_tiny")
    assert not table.printed
    assert [row.name for row in table.rows] == [
        f"{method}-timm:convnext_tiny" for method in ("maskformer", "mask2former", "hcformer", "hcformer+")
    ]
    assert {row.experiment.backbone for row in (*table.rows, *table.small_rows)} == {"timm:convnext_tiny"}
    assert {row.experiment.scale for row in table.small_rows} == {"small"} and len(table.small_rows) == 4
    kinds = {m.kind for m in table.measurements()}
    assert kinds == {"complexity", "latency", "accuracy"}
    for row in (*table.rows, *table.small_rows):
        assert find_row(f"table1/{row.name}") == find_row(f"table1@timm:convnext_tiny/{row.name}") == row.experiment


def test_rows_keep_their_factors_and_bases_with_another_backbone():
    layers = get_table("table5@r101").rows
    assert [row.experiment.decoder_layers for row in layers] == [1, 2, 4, 8, 16] and {r.base for r in layers} == {4}
    heads = get_table("tableIb@timm:resnet18")  # PSPNet and DeepLabv3 need dilated stages
    assert [row.experiment.method for row in heads.rows] == [
        "fcn_32s",
        "fpn",
        "hc_fcn_32s",
        "hc_pspnet",
        "hc_deeplabv3",
    ]
    assert [row.base for row in heads.rows] == [1, None, 1, None, None]
    assert get_table("table1@r101").small_rows == ()


def test_recipes_say_pretrained_where_there_are_weights():
    for row in (*get_table("tableIa@timm:resnet18").rows, *get_table("table1@timm:resnet18").rows):
        assert recipe_for(row.experiment).pretrained is False, row.name
    assert recipe_for(find_row("tableIa/pspnet-r101")).pretrained


def test_what_claims_compare_is_timed_in_one_run():
    hc_fcn, fpn = (find_row(f"tableIb/{name}-r101") for name in ("hc_fcn_32s", "fpn"))
    assert fpn in latency_bases(hc_fcn)


@pytest.mark.parametrize(
    "name",
    ["table1@timm:", "table1@r5", "tabel1@r50", "table1@timm:a-b", "table1@small", "tableIa@swin_s", "small_real@r50"],
)
def test_a_mistyped_backbone_of_a_table_is_one_line(name):
    with pytest.raises(BenchError, match="^[^\n]+$"):
        get_table(name)
