"""The published numbers of Tables 2 to 5 and I to VII against the paper's text, in both directions."""

import csv
import re
from collections import Counter

import pytest

from bench.experiments.published import PUBLISHED, load_published

CELLS = ("PQ", "flops", "params")
SEMANTIC = ("mIoU", "flops", "params")
PER_PIXEL = ("mIoU", "pixel_accuracy", "latency_end_to_end")
INSTANCE = ("AP", "AP_S", "AP_M", "AP_L", "AP_boundary", "params", "flops")
UNITS = {"params": "M", "flops": "G", "latency_end_to_end": "ms"}
TOLERANCES = {
    "mIoU": ((0.5, False), (1.0, False)),
    "params": ((0.6, False),),
    "flops": ((3.0, True),),
    "latency_end_to_end": ((25.0, True),),
}
SUFFIX = {"M": "params", "G": "flops"}
NUMBER = re.compile(r"\d+(\.\d+)?[MG]?")

# The head of each table, up to the first number that is a result: a changed text is noticed, not misread.
AP_HEAD = ["method", "backbone", "AP", "AP ^S", "AP ^M", "AP ^L", "AP ^{boundary}", "#params.", "FLOPs"]
TABLE3_HEAD = "method,backbone,crop size,mIoU,FLOPs,method,backbone,mIoU,FLOPs,".split(",")
TABLE_I_HEAD = "Models,mIoU,Pixel Acc.,msec/image,Method,mIoU,Pixel acc.,msec/image".split(",")
LEVELS = ["Hierarchical Level", "0", "1", "2", "3"]
LAYERS = ["#Decoder Layers", "1", "2", "4", "8", "16"]


class Paper:
    """Lines of the tables of the paper's text, split into cells."""

    def __init__(self, text: str):
        self.text = text

    def lines(self, table: str) -> list[list[str]]:
        start = self.text.index(f"\nTable {table}: ")
        return [line.split("\t") for line in self.text[start:].split("\n\n")[1].splitlines()]

    def rows(self, table: str) -> dict[str, list[tuple[str, str, dict[str, str]]]]:
        """File name -> method, backbone and printed texts of every row, in the paper's order."""
        return READERS[table](self.lines(table))


def plain(name: str) -> str:
    """A method's name without its reference, in the project's spelling."""
    return re.sub(r"\[\d+\]", "", name).replace("Deeplab", "DeepLab")


def by_row(metrics, values):
    return {metric: text for metric, text in zip(metrics, values, strict=True) if text != "-"}


def table2(lines):
    assert lines[0] == AP_HEAD
    return {"table2": [(plain(line[0]), line[1], by_row(INSTANCE, line[2:])) for line in lines[1:]]}


def table3(lines):
    assert lines[1] == TABLE3_HEAD
    parts = {"table3a": [], "table3b": []}
    for line in lines[2:]:
        method, backbone, crop, *values = line[:5]
        parts["table3a"].append((plain(method), backbone, {"crop": crop} | by_row(("mIoU", "flops"), values)))
        method, backbone, *values = line[5:9]
        parts["table3b"].append((plain(method), backbone, by_row(("mIoU", "flops"), values)))
    return parts


def per_pixel(lines):
    assert lines[1] == TABLE_I_HEAD
    halves = {"tableIa": [line[:4] for line in lines[2:]], "tableIb": [line[4:] for line in lines[2:]]}
    return {
        part: [(plain(name), "R101", by_row(PER_PIXEL, values)) for name, *values in rows if name]
        for part, rows in halves.items()
    }


def columns(name, head, label, metrics=CELLS, backbone="R50"):
    """Reader of an ablation: one experiment a column, one metric a line."""

    def read(lines):
        assert lines[0] == head and [line[0] for line in lines[1:]] == labels(metrics)
        values = [line[1:] for line in lines[1:]]
        return {name: ablation(head[1:], values, label, metrics, backbone)}

    return read


def labels(metrics):
    return [{"flops": "FLOPs", "params": "#Params"}.get(metric, metric) for metric in metrics]


def ablation(factors, values, label, metrics, backbone):
    columns = zip(*values, strict=True)
    return [(label(f), backbone, by_row(metrics, texts)) for f, texts in zip(factors, columns, strict=True)]


def level(factor):
    return f"HCFormer, level {factor}"


def layers(factor):
    return f"HCFormer, {factor} decoder layer{'s' if factor != '1' else ''}"


def downsampling(lines):
    """Table II: two parts side by side. The text has a stray "PQ" in its head in place of the second part's levels."""
    assert lines[0][:2] == ["Hierarchical Level", "(a) w/ DCNv2"] and lines[0][5] == "(b) w/o DCNv2"
    assert lines[1] == ["", "0", "1", "2", "3", "PQ", "0", "1", "2"]
    assert [line[0] for line in lines[2:]] == labels(CELLS)
    halves = {"tableIIa": slice(1, 5), "tableIIb": slice(5, 9)}
    return {
        part: ablation(LEVELS[1:], [line[half] for line in lines[2:]], level, CELLS, "R50")
        for part, half in halves.items()
    }


def standard_decoder(lines):
    assert lines[0] == ["method", "PQ", "FLOPs"]
    return {"tableIII": [(plain(line[0]), "R50", by_row(("PQ", "flops"), line[1:])) for line in lines[1:]]}


def queries(lines):
    """Table IV: data set after data set, and the numbers of queries of each."""
    assert lines[0] == ["#Queries", "20", "50", "100", "150", "200"]
    rows = []
    for name, *values in lines[1:]:
        dataset, metric = re.fullmatch(r"(\w+) \((\w+)\)", name).groups()
        rows += [
            (f"HCFormer, {dataset}, {number} queries", "R50", {metric: text})
            for number, text in zip(lines[0][1:], values, strict=True)
        ]
    return {"tableIV": rows}


READERS = {
    "2": table2,
    "3": table3,
    "4": columns("table4", LEVELS, level),
    "5": columns("table5", LAYERS, layers),
    "I": per_pixel,
    "II": downsampling,
    "III": standard_decoder,
    "IV": queries,
    "V": columns("tableV", LEVELS, level, SEMANTIC),
    "VI": columns("tableVI", LEVELS, level, backbone="Swin-S"),
    "VII": columns("tableVII", LAYERS, layers, SEMANTIC),
}
FACTORS = {"2": 0, "3": 14, "4": 4, "5": 5, "I": 0, "II": 7, "III": 0, "IV": 5, "V": 4, "VI": 4, "VII": 5}
PARTS = {"3": "ab", "I": "ab", "II": "ab"}
FILES = [f"table{table}{part}" for table in READERS for part in PARTS.get(table, [""])]


@pytest.fixture(scope="module")
def paper(shared):
    path = shared / "paper" / "hcformer.txt"
    if not path.is_file():
        pytest.skip("the paper's text is not beside this checkout")
    return Paper(path.read_text(encoding="utf-8"))


def entries(name: str) -> list[dict[str, str]]:
    with open(PUBLISHED / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("table", READERS)
def test_every_number_is_the_papers_and_none_is_missing(paper, table):
    for name, rows in paper.rows(table).items():
        printed = [
            (str(number), method, backbone, metric, text.rstrip("MG"))
            for number, (method, backbone, texts) in enumerate(rows, start=1)
            for metric, text in texts.items()
            if metric != "crop"
        ]
        ours = [tuple(e[key] for key in ("row", "method", "backbone", "metric", "published")) for e in entries(name)]
        assert sorted(ours) == sorted(printed)
        assert [int(entry[0]) for entry in ours] == sorted(int(entry[0]) for entry in ours)


@pytest.mark.parametrize("table", READERS)
def test_no_cell_of_the_text_is_left_unread(paper, table):
    """The numbers of the text, however they stand, are those of the files, the factors and the crop sizes."""
    files = [f"table{table}{part}" for part in PARTS.get(table, [""])]
    cells = [cell for line in paper.lines(table) for cell in line if NUMBER.fullmatch(cell)]
    ours = Counter(entry["published"] for name in files for entry in entries(name))
    left = Counter(cell.rstrip("MG") for cell in cells) - ours
    assert not ours - Counter(cell.rstrip("MG") for cell in cells)
    assert left.total() == FACTORS[table] and all("." not in cell for cell in left)
    for suffix, metric in SUFFIX.items():
        named = Counter(e["published"] for name in files for e in entries(name) if e["metric"] == metric)
        assert named == Counter(cell.rstrip(suffix) for cell in cells if cell.endswith(suffix))


def test_the_crop_size_of_ade20k_stands_with_its_flops(paper):
    flops = [entry for entry in entries("table3a") if entry["metric"] == "flops"]
    for entry, (_, _, texts) in zip(flops, paper.rows("3")["table3a"], strict=True):
        assert entry["basis"].startswith(f"crop {texts['crop']} x {texts['crop']};")


def test_every_table_of_the_paper_has_its_file():
    assert {path.stem for path in PUBLISHED.glob("*.csv")} == {"table1", *FILES}


@pytest.mark.parametrize("name", FILES)
def test_units_and_tolerances(name):
    published = load_published(name)
    assert len(published) == len(entries(name))  # no cell twice
    rows = [number for number, _ in published]
    assert set(rows) == set(range(1, max(rows) + 1))
    for (_, metric), cell in published.items():
        assert cell.unit == UNITS.get(metric, "%") and cell.basis
        assert (cell.tolerance, cell.relative) in TOLERANCES.get(metric, ((0.5, False),))


# Cells of one experiment that the paper prints in several tables: metric, then "table row" of each.
SAME = (
    ("PQ", "table1 5, table4 4, table5 4, tableIIa 4, tableIV 3"),
    ("flops", "table1 5, table2 4, table4 4, table5 4, tableIIa 4, tableIIb 4"),
    ("params", "table1 5, table2 4, table4 4, table5 4, tableIIa 4, tableIIb 4"),
    ("mIoU", "table3a 3, tableV 4, tableVII 4, tableIV 8"),
    ("flops", "table3a 3, tableV 4, tableVII 4"),
    ("mIoU", "table3b 3, tableIV 13"),
    *((metric, "table4 1, tableIIa 1, tableIIb 1") for metric in CELLS),
    *((metric, "table1 9, tableVI 4") for metric in CELLS),
    *((metric, "table1 2, tableIII 1") for metric in ("PQ", "flops")),
)


@pytest.mark.parametrize("metric, cells", SAME)
def test_one_experiment_has_one_number_in_all_tables(metric, cells):
    places = [cell.split() for cell in cells.split(", ")]
    assert len({load_published(table)[int(row), metric].value for table, row in places}) == 1
