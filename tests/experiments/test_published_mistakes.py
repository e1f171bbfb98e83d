"""Mistakes in the files of `results/published`: one line that names the file, and the line, the note or the claim."""

import pytest

from bench.errors import BenchError
from bench.experiments.claims import load_claims
from bench.experiments.declarations import DECLARATIONS
from bench.experiments.published import PrintedRow, load_notes, load_published, load_rows
from bench.experiments.tables import build_row

HEAD = "row,name,method,backbone,factors,base,metric,unit,published,tolerance,tolerance_unit,basis\n"
FIRST = "1,hcformer-r50,HCFormer,R50,,,PQ,%,47.7,0.5,absolute,seeds vary\n"


def refused(load, words: str, place: str) -> None:
    with pytest.raises(BenchError) as error:
        load()
    assert words in str(error.value) and place in str(error.value) and "\n" not in str(error.value), error.value


def test_rows_and_numbers(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + FIRST + FIRST.replace("PQ,%,47.7", "flops,G,87"))
    (row,) = load_rows("t", tmp_path)
    assert (row.name, row.method, row.backbone, row.factor_values()) == ("hcformer-r50", "HCFormer", "R50", {})
    assert {cell: found.value for cell, found in load_published("t", tmp_path).items()} == {
        (1, "PQ"): 47.7,
        (1, "flops"): 87.0,
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1,hcformer-r50,HCFormer,R50,,,PQ_th,%,x,0.5,absolute,\n", "is malformed (could not convert"),
        ("1,hcformer-r50,HCFormer,R50,,,PQ_th,%,51,0.5,percent,\n", "is malformed ('percent')"),
        ("1,hcformer-r50,HCFormer,R50\n", "is malformed (too many or too few cells)"),
        (FIRST, "PQ of row 1 has a number already"),
        (FIRST.replace("HCFormer", "HCFormer+"), "method of row 1 is 'HCFormer+', but 'HCFormer' on its first line"),
        (FIRST.replace(",,,PQ", ",num_queries=50,,PQ_th"), "factors of row 1 is 'num_queries=50', but '' on its first"),
        (FIRST.replace("1,", "2,", 1), "another row is called 'hcformer-r50'"),
        (FIRST.replace("1,hc", "3,hc+", 1), "row 3 is out of order"),
        ("2,hcformer-r50-queries9,HCFormer,R50,num_queries=9,hcformer-r51,PQ,%,40,0.5,absolute,\n",
         "unknown row as base 'hcformer-r51': did you mean 'hcformer-r50'"),
    ],
)  # fmt: skip
def test_a_bad_line_of_a_table(tmp_path, line, words):
    (tmp_path / "t.csv").write_text(HEAD + FIRST + line)
    refused(lambda: load_published("t", tmp_path), words, "t.csv line 3")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    refused(lambda: load_rows("t", tmp_path), "is malformed", "t.csv line")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("hcfromer-r50", "HCFormer", "R50"), "unknown method 'hcfromer': did you mean 'hcformer'"),
        (("hcfromer-r50-x", "Ours", "R50", "num_queries=50"), "unknown method 'hcfromer'"),
        (("hcformer-r51", "HCFormer", "R51"), "unknown backbone 'r51'"),
        (("hcformer", "HCFormer", "R50"), "name 'hcformer' must be METHOD-BACKBONE"),
        (("hcformer-r50", "HCFormer", "R50", "num_queries"), "factors 'num_queries' must be FACTOR=VALUE"),
        (("hcformer-r50", "HCFormer", "R50", "queries=50"), "unknown factor 'queries'"),
        (("hcformer-r50", "HCFormer", "R50", "backbone=r50"), "backbone"),
        (("hcformer-r50", "HCFormer", "R50", "dataset=ade"), "unknown data set 'ade'"),
        (("hcformer-r50", "HCFormer", "R50", "num_queries=0"), "num_queries must be a whole number from 1"),
    ],
)
def test_a_row_that_cannot_be_built(row, words):
    printed = PrintedRow(*row, **({} if len(row) == 4 else {"factors": ""}), place="t.csv line 7")
    refused(lambda: build_row(1, printed, "coco_panoptic"), words, "t.csv line 7")


def test_a_method_that_is_not_built_here_has_a_row():
    row = build_row(3, PrintedRow("knet-r50", "K-Net", "R50"), "coco_panoptic")
    assert (row.name, row.method, row.experiment) == ("knet-r50", "K-Net", None)


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("[a]\nkind = accuracy\n", "is malformed: Invalid value (at line 2", "notes.toml"),
        ('[a]\nkind = "accurate"\ntext = "x"\n', "unknown kind 'accurate': did you mean 'accuracy'", "note a"),
        ('[a]\nkind = "accuracy"\ntxt = "x"\n', "unknown key 'txt': did you mean 'text'", "note a"),
        ('[a]\nkind = "accuracy"\n', "text is missing", "note a"),
        ('a = "x"\n', "must be a table", "note a"),
    ],
)
def test_bad_notes(tmp_path, text, words, place):
    (tmp_path / "notes.toml").write_text(text)
    refused(lambda: load_notes(tmp_path), words, place)


CLAIM = """
[Accuracy.pq]
text = "HCFormer > MaskFormer, PQ"
relation = "greater"
metric = "PQ"
cases = [
    {label = "*", rows = "table1/{hcformer,maskformer}-*", for = "r50 swin_s"},
    {label = "small, 1", margin = 1, rows = ["table1/hcformer-small", "table1/maskformer-small"]},
]
"""


def test_cases_of_a_claim(tmp_path):
    (tmp_path / "claims.toml").write_text(CLAIM)
    claim = load_claims(tmp_path)["pq"]
    assert (claim.group, claim.sections, claim.note) == ("Accuracy", "", "")
    assert [(case.label, case.scale, case.margin, case.rows) for case in claim.cases] == [
        ("R50", "paper", 0.0, ("table1/hcformer-r50", "table1/maskformer-r50")),
        ("Swin-S", "paper", 0.0, ("table1/hcformer-swin_s", "table1/maskformer-swin_s")),
        ("small, 1", "small", 1.0, ("table1/hcformer-small", "table1/maskformer-small")),
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"greater"', '"greatest"', "claim pq: unknown relation 'greatest': did you mean 'greater'"),
        ('metric = "PQ"\n', "", "claim pq: metric is missing"),
        ('"PQ"\n', '"QP"\n', "claim pq: unknown metric 'QP'"),
        ('text = "', 'txt = "', "claim pq: unknown key 'txt': did you mean 'text'"),
        ("for = ", "of = ", "claim pq: unknown key 'of'"),
        ("margin = 1", 'margin = "1"', "claim pq: margin has a value of another type: '1'"),
        ("swin_s", "swin_t", "claim pq: unknown row of table1 'hcformer-swin_t': did you mean"),
        ("table1/{", "table9/{", "claim pq: unknown table 'table9'"),
        ("{hcformer,maskformer}", "{hcformer}", "claim pq: case 'R50' has 1 rows and 0 minus: 'greater' compares two"),
        ('for = "', 'minus = "table1/hcformer-r50", for = "', "claim pq: case 'R50' has 2 rows and 1 minus"),
        ('"small, 1"', '"R50"', "claim pq: needs one case or more, each with a label of its own"),
        ("[Accuracy.pq]", "[Accuracy.pq", "claims.toml is malformed: "),
        ("[Accuracy.pq]", "Accuracy = 1\n[Speed.pq]", "claims.toml: 'Accuracy' stands outside any claim"),
        ("[Accuracy.pq]", "[Accuracy]\npq = 1\n[Speed.fps]", "claim pq: must be a table of keys and values"),
    ],
)
def test_bad_claims(tmp_path, old, new, words):
    assert old in CLAIM
    (tmp_path / "claims.toml").write_text(CLAIM.replace(old, new, 1))
    refused(lambda: load_claims(tmp_path), words, "claims.toml")


def test_a_claim_of_two_groups(tmp_path):
    (tmp_path / "claims.toml").write_text(CLAIM + CLAIM.replace("[Accuracy", "[Speed"))
    refused(lambda: load_claims(tmp_path), "claim pq: stands in Accuracy too", "claims.toml")


def test_a_missing_file(tmp_path):
    refused(lambda: load_claims(tmp_path), "is missing: run from a checkout", "claims.toml")


def test_every_note_is_used_where_its_kind_says():
    of_tables = {note for table in DECLARATIONS.values() for note in table.notes}
    of_small = {note for table in DECLARATIONS.values() for block in table.small for note in block.notes}
    notes = load_notes()
    assert of_small == {name for name, note in notes.items() if note.kind == "small"}
    assert of_tables == notes.keys() - of_small
