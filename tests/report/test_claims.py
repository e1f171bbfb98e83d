"""The page of claims: what decides a claim, what leaves it undecided, and the paper's own figures."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from bench.errors import BenchError
from bench.experiments import experiment, get_table
from bench.experiments.claims import RELATIONS, get_claims
from bench.experiments.tables import find_row, table_and_row
from bench.records import Store
from bench.report import collect_cells, write_report
from bench.report.claims import decide_claims, render_claims
from bench.report.decisions import TESTS, DecidedCase, decide_case
from bench.report.write import write_claims
from tests.conftest import mistake
from tests.report.fakes import accuracy, complexity, latency, released
from tests.report.test_report import tables_of

# Read from the paper's tables by hand: the sentences that its own figures do not bear out.
AGAINST_ITS_OWN_FIGURES = {
    ("pq-cnn-same", "R50"),  # "almost the same": 47.7 and 46.5
    ("miou-maskformer", "ADE20K Swin-S"),  # 48.8 against 49.8
    ("miou-maskformer", "Cityscapes Swin-L"),  # 81.6 against 81.8
    ("ade20k-segformer", "R50, SegFormer MiT-B2"),  # 45.5 against 46.5
    ("ade20k-segformer", "Swin-S, SegFormer MiT-B5"),  # 48.8 against 51.0
    ("comparable", "ADE20K Swin-S, SegFormer MiT-B5"),  # the same, more than 1 apart
    ("comparable", "Cityscapes R50, SegFormer MiT-B2"),  # 76.7 against 81.0
    ("comparable", "Cityscapes Swin-S, SegFormer MiT-B5"),  # 79.3 against 82.4
    ("comparable", "Cityscapes Swin-L, SegFormer MiT-B5"),  # 81.6 against 82.4
    ("miou-pan-mask2former", "HCFormer+ Swin-S"),  # 64.4 against 64.2
    ("flops-half", "ADE20K R50"),  # 29 of 53
    ("layers-enough", "ADE20K R50, 4"),  # 44.5, with 16 layers 46.1
    ("queries", "ADE20K"),  # "saturated": 45.5, with 200 queries 44.4
}


def claims_page(store: Store) -> str:
    return render_claims(collect_cells(store))


def line(store: Store, claim: str, case: str) -> DecidedCase:
    """The case, decided from the tables that it compares rows of."""
    (found,) = [found for found in get_claims()[claim].cases if found.label == case]
    tables = {table_and_row(name)[0].name: table_and_row(name)[0] for name in (*found.rows, *found.minus)}
    return decide_case(get_claims()[claim], found, collect_cells(store, tables=tables.values()).tables)


def decision(store: Store, claim: str, case: str) -> tuple[str, str]:
    outcome = line(store, claim, case).outcome
    return outcome.decision, outcome.reason


def page_line(store: Store, text: str, case: str) -> list[str]:
    """The cells of a case on the page, from its place on."""
    claim = ""
    for block in tables_of(claims_page(store)):
        for cells in block:
            claim = cells[0] or claim
            if claim.startswith(text) and cells[2:3] == [case]:
                return cells[1:]
    raise AssertionError(f"no line of {text}, {case}")


def seeds(store: Store, row: str, values) -> None:
    for seed, value in enumerate(values):
        store.write(accuracy(find_row(row), seed, value))


# The paper's own figures


def test_the_papers_figures_bear_out_its_claims_but_for_these(tmp_path):
    lines = decide_claims(collect_cells(Store(tmp_path)))
    against = {(entry.claim.id, entry.case.label) for entry in lines if entry.printed == "does not hold"}
    assert against == AGAINST_ITS_OWN_FIGURES
    undecided = {(entry.claim.id, entry.case.scale) for entry in lines if not entry.printed}
    assert {claim for claim, scale in undecided if scale == "paper"} == {"slower"}  # a sentence without a table
    assert all(entry.printed is None for entry in lines if entry.case.scale == "small")


@pytest.mark.parametrize(
    ("claim", "case", "values"),
    [
        ("fcn", "Cityscapes", [76.1, 71.7]),
        ("pspnet", "Cityscapes", [77.6, 77.7]),
        ("pq-knet", "Swin-L", [55.1, 54.6]),
        ("ap-large", "R50", [59.7, 54.2]),
        ("levels", "COCO Swin-S", [47.5, 49.7, 50.5, 50.9]),
        ("layers", "ADE20K R50", [43.2, 44.4, 44.5, 45.5, 46.1]),
        ("queries", "COCO", [47.7, 47.9, 47.9]),
        ("level-2", "COCO R50", [46.7, 46.5]),
        ("flops-half", "COCO R50", [87, 181]),
        ("pspnet-time", "ADE20K", [19.0, 48.7]),
        ("dcnv2-levels", "COCO R50", [1.6, 1.9, 2.4]),
        ("one-layer", "ADE20K, DeepLabv3", [43.2, 42.7]),
    ],
)
def test_figures_are_those_that_the_paper_prints(tmp_path, claim, case, values):
    assert line(Store(tmp_path), claim, case).values == pytest.approx(values)


# Declarations


def test_declarations_name_what_there_is(tmp_path):
    assert TESTS.keys() == set(RELATIONS) == {claim.relation for claim in get_claims().values()}
    tables = collect_cells(Store(tmp_path)).tables
    for claim in get_claims().values():
        assert claim.cases and len({case.label for case in claim.cases}) == len(claim.cases), claim.id
        sides = 2 if claim.relation in ("greater", "less", "at least", "within", "ratio below", "ratio above") else None
        for case in claim.cases:
            assert sides in (None, len(case.rows)) and len(case.minus) in (0, len(case.rows)), claim.id
            for name in (*case.rows, *case.minus):
                experiment = table_and_row(name)[1].experiment
                assert experiment is None or experiment.scale == case.scale, name
            timed = decide_case(claim, case, tables).column.kind == "latency"
            assert not timed or claim.relation.startswith("ratio"), claim.id


def test_a_row_that_is_not_there_is_a_mistake():
    with pytest.raises(BenchError, match="unknown row of tableIb 'fcn_32-small': did you mean 'fcn_32s-small'"):
        table_and_row("tableIb/fcn_32-small")
    with pytest.raises(BenchError, match="unknown table"):
        table_and_row("table99/hcformer-r50")


# Accuracy


BASE = (40.0, 41.0, 42.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((43.0, 44.0, 45.0), ("holds", "")),
        ((37.0, 38.0, 39.0), ("does not hold", "")),
        ((40.0, 40.0, 40.0), ("does not hold", "")),  # equal at best
        ((41.5, 44.0, 45.0), ("undecided", "overlap")),
        ((35.0, 36.0, 40.5), ("undecided", "overlap")),
        ((43.0, 44.0), ("undecided", "2 of 3 seeds")),
        ((43.0,), ("undecided", "1 of 3 seeds")),
        ((), ("no records", "of 1 of 2")),
    ],
)
def test_seeds_decide_that_one_method_is_better(tmp_path, values, expected):
    store = Store(tmp_path)
    seeds(store, "table1/maskformer-small", BASE)
    seeds(store, "table1/hcformer-small", values)
    assert decision(store, "pq-maskformer", "small") == expected
    assert decision(store, "pq-maskformer", "R50") == ("no records", "")


@pytest.mark.parametrize(
    ("values", "expected"),
    [((40.6, 40.7, 40.8), "undecided"), ((41.0, 41.0, 41.0), "undecided"), ((42.6, 42.7, 42.8), "does not hold")],
)
def test_margin_of_half_a_point(tmp_path, values, expected):
    """Within 0.5 of 40.0 to 42.0 is nothing in every choice of seeds; within 0.5 of three equal seeds is 40.6."""
    store = Store(tmp_path)
    seeds(store, "table1/maskformer-small", BASE)
    seeds(store, "table1/hcformer-small", values)
    assert decision(store, "pq-cnn-same", "small")[0] == expected
    seeds(store, "table1/maskformer-small", [values[0] - 0.5] * 3)
    assert decision(store, "pq-cnn-same", "small")[0] == ("holds" if len(set(values)) == 1 else "undecided")


def test_a_series_rises_step_by_step(tmp_path):
    store, rows = Store(tmp_path), [f"table4/hcformer-small-level{level}" for level in range(4)]
    assert decision(store, "levels", "small PQ") == ("no records", "")
    for row, middle in zip(rows[:3], (30.0, 32.0, 34.0), strict=True):
        seeds(store, row, [middle - 0.5, middle, middle + 0.5])
    assert decision(store, "levels", "small PQ") == ("no records", "of 1 of 4")
    seeds(store, rows[3], [36.0, 36.1, 36.2])
    assert decision(store, "levels", "small PQ") == ("holds", "")
    seeds(store, rows[2], [31.0, 31.2, 31.4])  # below level 1 for every seed
    assert decision(store, "levels", "small PQ") == ("does not hold", "")
    seeds(store, rows[2], [31.0, 31.2, 33.0])
    assert decision(store, "levels", "small PQ") == ("undecided", "overlap")
    assert decision(store, "levels", "small mIoU") == ("undecided", "overlap")  # four points higher, the same


def test_a_series_without_an_order_in_any_choice_does_not_rise(tmp_path):
    """Every two neighbours overlap upwards, yet no choice of seeds rises all along."""
    store = Store(tmp_path)
    for level, values in enumerate([(30, 34, 34), (31, 35, 35), (30, 33, 33), (40, 41, 42)]):
        seeds(store, f"table4/hcformer-small-level{level}", [float(v) for v in values])
    assert decision(store, "levels", "small PQ") == ("undecided", "overlap")  # 30 < 31 < 33 < 40
    seeds(store, "table4/hcformer-small-level2", [31.0, 31.0, 31.0])
    assert decision(store, "levels", "small PQ") == ("does not hold", "")


def test_gain_of_dcnv2_is_a_difference(tmp_path):
    store = Store(tmp_path)
    for level, (plain, deformable) in enumerate([(40.0, 42.0), (37.0, 41.0), (34.0, 40.0)], start=1):
        seeds(store, f"tableIIb/hcformer-small-level{level}", [plain] * 3)
        seeds(store, f"tableIIa/hcformer-small-level{level}", [deformable, deformable + 0.1, deformable + 0.2])
    found = line(store, "dcnv2-levels", "small")
    assert found.outcome.decision == "holds"
    assert [round(value.value, 6) for value in found.measured] == [2.1, 4.1, 6.1]
    assert decision(store, "dcnv2", "small level 1") == ("holds", "")  # by more than 1
    seeds(store, "tableIIa/hcformer-small-level1", [41.0] * 3)
    assert decision(store, "dcnv2", "small level 1") == ("does not hold", "")


def test_queries_saturate_where_more_of_them_change_little(tmp_path):
    store = Store(tmp_path)
    for queries, value in ((20, 40.0), (30, 40.5), (40, 39.5)):
        seeds(store, f"tableIV/hcformer-small-queries{queries}", [value] * 3)
    assert decision(store, "queries", "small") == ("holds", "")
    seeds(store, "tableIV/hcformer-small-queries40", [40.6] * 3)
    assert decision(store, "queries", "small") == ("does not hold", "")
    seeds(store, "tableIV/hcformer-small-queries40", [20.0] * 3)  # a collapse
    assert decision(store, "queries", "small") == ("does not hold", "")


def test_layers_suffice_where_more_of_them_gain_little(tmp_path):
    store = Store(tmp_path)
    for layers, value in ((4, 40.0), (8, 41.1), (16, 30.0)):
        seeds(store, f"tableVII/hcformer-small-layers{layers}", [value] * 3)
    assert decision(store, "layers-enough", "small mIoU, 4") == ("does not hold", "")
    assert decision(store, "layers-enough", "small mIoU, 8") == ("holds", "")  # more layers lose, so 8 suffice


def test_comparable_is_not_below_by_more_than_the_tolerance(tmp_path):
    store = Store(tmp_path)
    seeds(store, "table1/maskformer-small", [40.0] * 3)
    for level_2, expected in ((39.5, "holds"), (60.0, "holds"), (39.4, "does not hold")):
        seeds(store, "table4/hcformer-small-level2", [level_2] * 3)
        assert decision(store, "level-2", "small") == (expected, "")


def test_a_released_checkpoint_decides_nothing(tmp_path):
    store = Store(tmp_path)
    seeds(store, "table1/maskformer-r50", BASE)
    store.write(released(pq=47.9))
    assert decision(store, "pq-maskformer", "R50") == ("undecided", "released checkpoint")
    seeds(store, "table1/hcformer-r50", [47.0, 47.9, 48.0])
    assert decision(store, "pq-maskformer", "R50") == ("holds", "")


def test_a_part_of_the_data_decides_nothing(tmp_path):
    store = Store(tmp_path)
    seeds(store, "table1/maskformer-r50", BASE)
    for seed in range(3):
        part = {"val_images": 100, "official_images": 5000}
        store.write(replace(accuracy(find_row("table1/hcformer-r50"), seed, 47.0), details=part))
    assert decision(store, "pq-maskformer", "R50") == ("undecided", "part of the data")


def test_records_of_another_recipe_do_not_count_and_are_said(tmp_path):
    store = Store(tmp_path)
    seeds(store, "table1/maskformer-small", BASE)
    store.write(replace(accuracy(find_row("table1/hcformer-small"), 0, 50.0), recipe={"iterations": 1}))
    assert decision(store, "pq-maskformer", "small") == ("no records", "of 1 of 2")
    assert "Left out: 1 record(s)" in claims_page(store)


# Complexity and speed


def test_a_count_needs_no_seeds(tmp_path):
    store = Store(tmp_path)
    store.write(complexity(flops=88.1))
    assert decision(store, "flops-half", "COCO R50") == ("no records", "of 1 of 2")
    store.write(complexity(find_row("table1/maskformer-r50"), 45.0, 182.9))
    assert decision(store, "flops-half", "COCO R50") == ("holds", "")
    assert page_line(store, "HCFormer < half of MaskFormer", "COCO R50")[2:] == [
        "87 / 181 = 0.48", "holds", "88.1 / 182.9 = 0.48", "holds"
    ]  # fmt: skip
    store.write(complexity(find_row("table1/maskformer-r50"), 45.0, 176.2))
    assert decision(store, "flops-half", "COCO R50") == ("does not hold", "")  # a half is not less than half


MASKFORMER = experiment("maskformer", "r50", "coco_panoptic", "paper")


def timed(tmp_path, ours, theirs=(0, 0, 0), **change) -> Store:
    """HCFormer at 900 ms and MaskFormer at 1000 ms end to end, moved by offsets a round."""
    store = Store(tmp_path / f"timed{len(list(tmp_path.iterdir()))}")
    store.write(latency(median=600.0, offsets=ours, **change))
    store.write(latency(MASKFORMER, 700.0, offsets=theirs))
    return store


def test_rounds_of_one_run_decide_a_claim_of_speed(tmp_path):
    def decided(*args, **change):
        return decision(timed(tmp_path, *args, **change), "slower", "COCO R50")

    assert decided((0, 0, 0)) == ("does not hold", "")
    assert decided((200, 200, 200)) == ("holds", "")
    assert decided((0, 0, 200)) == ("undecided", "rounds disagree")
    assert decided((*[0] * 19, 200), [0] * 20) == ("does not hold", "")  # one slow round of twenty
    assert decided((0, 0), (0, 0)) == ("undecided", "2 of 3 rounds")
    assert decided((0, 0, 0), (0, 0)) == ("undecided", "not of one run")


def test_latencies_of_different_runs_or_machines_are_not_compared(tmp_path):
    for change in ({"run": "b"}, {"cpu": "Another CPU"}, {"gpu": "A GPU"}):
        store = timed(tmp_path, (200, 200, 200), **change)
        assert decision(store, "slower", "COCO R50") == ("undecided", "not of one run")
        assert page_line(store, "HCFormer slower", "COCO R50")[-2:] == ["900 / 1000", "undecided: not of one run"]


def test_a_claim_of_speed_names_the_device(tmp_path):
    store = timed(tmp_path, (0, 100, 200))
    assert page_line(store, "HCFormer slower", "COCO R50") == [
        "L", "COCO R50", "about 10 % slower", "", "900 / 1000 = 1.00 (0.90..1.10)", "undecided: rounds disagree"
    ]  # fmt: skip
    text = " ".join(claims_page(store).split())
    assert "Here: Example CPU @ 2.00GHz, 2 cores, no GPU, 2 threads, clustering compiled." in text
    how = "without its earlier mask predictions. Timed here on a CPU, clustering compiled."
    assert text.count(how) == 1
    text = " ".join(claims_page(timed(tmp_path, (0, 0, 0))).split())
    assert "- HCFormer slower than MaskFormer: COCO R50. Said of the paper's clustering." in text
    assert (
        text.count("without its earlier mask predictions. Timed here on a CPU, clustering compiled.") == 2
    )  # listed and noted


# The page


def test_an_empty_store_has_every_claim_and_no_record(tmp_path):
    text = write_claims(Store(tmp_path)).read_text(encoding="utf-8")
    assert "- No records yet." in text and text.endswith("\n")
    summary, *blocks = tables_of(text)
    cases = [case for claim in get_claims().values() for case in claim.cases]
    small = sum(case.scale == "small" for case in cases)
    tables = sum(case.scale == "paper" for claim in get_claims().values() if not claim.sections for case in claim.cases)
    printed = len(cases) - small - tables - 3  # the slower claim
    unsaid = sum(not get_claims()[claim].sections for claim, _ in AGAINST_ITS_OWN_FIGURES)
    against, timed = len(AGAINST_ITS_OWN_FIGURES) - unsaid, 3 + 2 + 2 + 1
    counted = sum(case.metric == "flops" for case in cases)
    accuracy = len(cases) - small - timed - counted
    assert [row[1:] for row in summary[2:]] == [
        [str(printed - against), str(against), "0", "0", str(printed)],
        [str(tables - unsaid), str(unsaid), "0", "0", str(tables)],
        *(["0", "0", "0", str(count), str(count)] for count in (counted, timed, accuracy, small)),
    ]
    rows = [row for block in blocks for row in block[2:]]
    assert len(rows) == len(cases) and [re.sub(r" \[\d+\]$", "", row[0]) for row in rows if row[0]] == [
        claim.text for claim in get_claims().values()
    ]
    assert {row[-1] for row in rows} == {"no records"} and {row[-2] for row in rows} == {""}


def test_lines_fit_and_align(tmp_path):
    store = Store(tmp_path)
    for layers in (1, 2, 4, 8, 16):
        seeds(store, f"table5/hcformer-small-layers{layers}", [20.0 + layers, 21.0 + layers, 22.0 + layers])
    for method in ("maskformer", "hcformer", "mask2former", "hcformer+"):
        seeds(store, f"table1/{method}-small", BASE)
    lines = write_claims(store).read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 205
    assert max(len(text) for text in lines if not text.startswith(("|", "- Software"))) <= 120
    widths = [len(text) if text.startswith("|") else 0 for text in lines]
    assert all(a == b for a, b in pairwise(widths) if a and b)


def test_ranges_and_seeds_that_find_no_room_go_to_a_footnote(tmp_path):
    store = Store(tmp_path)
    for level in range(4):
        seeds(store, f"table4/hcformer-small-level{level}", [30.0 + 3 * level, 31.0 + 3 * level])
    place, _, _, _, here, decided = page_line(store, "Accuracy rises with the level", "small PQ")
    number = re.fullmatch(r"30.5 < 33.5 < 36.5 < 39.5 \[(\d+)\]", here)[1]
    assert (place, decided) == ("3.3, E.3; Tab. 4", "undecided: 2 of 3 seeds")
    ranges = "Ranges: level 0 30.0..31.0, level 1 33.0..34.0, level 2 36.0..37.0, level 3 39.0..40.0."
    assert f"- [{number}] {ranges}\n" in claims_page(store)
    seeds(store, "table1/maskformer-small", BASE)
    here = page_line(store, "HCFormer > MaskFormer, PQ", "small")[-2]  # level 3 is the model of Table 1
    number = re.fullmatch(r"39.5 \(39.0..40.0\) < 41.0 \(40.0..42.0\) \[(\d+)\]", here)[1]
    assert f"- [{number}] Seeds: HCFormer small 2, MaskFormer small 3.\n" in claims_page(store)


def test_what_does_not_hold_stays_and_is_listed(tmp_path):
    store = Store(tmp_path)
    seeds(store, "table1/maskformer-small", BASE)
    seeds(store, "table1/hcformer-small", (30.0, 31.0, 32.0))
    assert page_line(store, "HCFormer > MaskFormer, PQ", "small")[-2:] == [
        "31.0 (30.0..32.0) < 41.0 (40.0..42.0)", "does not hold"
    ]  # fmt: skip
    listed = claims_page(store).split("Does not hold by records:")[1].split("##")[0]
    assert "- HCFormer > MaskFormer, PQ: small.\n" in listed


def test_head_names_the_records_of_the_page_alone(tmp_path):
    store = Store(tmp_path)
    store.write(complexity())
    store.write(complexity(experiment("hcformer", "r50", "coco_panoptic", "paper", num_queries=7), cpu="Unused CPU"))
    text = claims_page(store)
    assert "- Machine: Example CPU @ 2.00GHz, 2 cores, no GPU\n" in text and "Unused" not in text
    assert "- Records: 1 (1 complexity)\n" in text


def test_every_report_of_a_table_rewrites_the_page(tmp_path):
    store = Store(tmp_path)
    write_report("table4", store)
    before = (tmp_path / "claims.md").read_text(encoding="utf-8")
    store.write(complexity())
    write_report("tableIV", store)
    after = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert before != after and after.split() == claims_page(store).split()


# The command line


def test_report_claims(bench, tmp_path):
    store = Store(tmp_path / "store")
    seeds(store, "table1/maskformer-small", BASE)
    code, out, errors = bench("report", "claims", "--store", store.path)
    page = store.path / "claims.md"
    assert (code, errors) == (0, "") and page.read_text(encoding="utf-8") in out
    assert out.endswith(f"written: {page}\n") and not (store.path / "tables").exists()
    bench("report", get_table("table5").name, "--store", store.path)
    assert (store.path / "tables" / "table5.md").is_file()


def test_mistakes_are_one_line(bench, tmp_path):
    mistake(bench("report", "claims", "--store", tmp_path / "absent"), "holds no records", "bench run table1'")
    mistake(bench("report", "claim", "--store", tmp_path / "absent"), "unknown table 'claim'", "did you mean 'claims'?")
    path = Store(tmp_path).write(complexity())
    path.write_text("{")
    mistake(bench("report", "claims", "--store", tmp_path), str(path), "damaged")
    assert not (tmp_path / "claims.md").exists()
