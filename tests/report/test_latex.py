"""The LaTeX exports: well-formed for every table, and the same numbers as the CSV's."""

import re

import pytest

from bench.experiments import TABLES, get_table
from bench.experiments.published import load_published
from bench.records import Store
from bench.report.latex import escape, render_latex
from tests.report.fakes import accuracy, complexity, full_store, latency, table_cells

FORMATTING = re.compile(r"\\(textbf|footnotesize)\b")


def tabulars(text: str) -> list[str]:
    found = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, flags=re.DOTALL)
    assert text.count(r"\begin{") == len(found)
    return found


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]


def width(line: str) -> int:
    """Columns that a line fills."""
    spans = [re.fullmatch(r"\\multicolumn\{(\d+)\}\{.\}\{.*\}", cell) for cell in cells_of(line)]
    return sum(int(span[1]) if span else 1 for span in spans)


def lines_of(tabular: str) -> list[str]:
    """The lines with cells; every other one is a rule."""
    lines = [line for line in tabular.splitlines()[1:-1] if line.endswith(r"\\")]
    rest = [line for line in tabular.splitlines()[1:-1] if not line.endswith(r"\\")]
    assert all(re.fullmatch(r"\\(top|mid|bottom)rule|(\\cmidrule\(lr\)\{\d+-\d+\})+", line) for line in rest)
    return lines


def check(text: str) -> None:
    assert text.isascii() and text.endswith("\n")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    outside = re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", body, flags=re.DOTALL)
    assert outside.strip() == ""
    plain = re.sub(r"\\[&%$#_{}]", "", body)
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[%$#_~^]", plain), "a special character that is not escaped"
    for tabular in tabulars(text):
        columns = re.match(r"\\begin\{tabular\}\{(l*r*)\}", tabular)[1]
        assert {width(line) for line in lines_of(tabular)} == {len(columns)}
        ranges = [tuple(map(int, ends)) for ends in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", tabular)]
        assert all(3 <= first <= last <= len(columns) for first, last in ranges)


def filled(table, folder) -> Store:
    store = Store(folder)
    for row in (row for row in table.rows if row.experiment):
        store.write(complexity(row.experiment))
        store.write(latency(row.experiment))
    for row in table.small_rows:
        for seed in range(3):
            store.write(accuracy(row.experiment, seed, 30.0 + seed))
    return store


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_well_formed_empty_and_full(tmp_path, name):
    table = get_table(name)
    text = render_latex(table_cells(table, Store(tmp_path / "empty")))
    check(text)
    numbers = [float(n) for line in text.splitlines() for n in re.findall(r"[\d.]+", values(line))]
    printed = load_published(name).values() if table.rows else []
    assert sorted(numbers) == sorted(p.value for p in printed)
    store = filled(table, tmp_path / "full")
    check(render_latex(table_cells(table, store)))


def values(line: str) -> str:
    """The cells behind method and backbone, without commands; empty for heads and rules."""
    cells = cells_of(line)
    if not line.endswith(r"\\") or len(cells) < 3 or line.startswith((r"\multicolumn", " ", "Method")):
        return ""
    return " ".join(FORMATTING.sub("", cell) for cell in cells[2:])


def test_cells_of_table_1(tmp_path):
    table = get_table("table1")
    store = full_store(table, tmp_path)
    text = render_latex(table_cells(table, store))
    accuracy_part, complexity_part, latency_part, small = tabulars(text)
    assert r"Mask2Former & R50 & \textbf{51.9} & \textbf{57.7} & \textbf{43.0}" in accuracy_part
    assert "measured" not in accuracy_part and r"\multicolumn{7}{l}{Accuracy (paper)}" in accuracy_part
    assert r"HCFormer & R50 & \textbf{38} & \textbf{38.40} & \textbf{87} & \textbf{87.9} \\" in complexity_part
    assert r"MaX-DeepLab & Max-L & 451 &  & 3692 &  \\" in complexity_part
    assert r" &  & \multicolumn{2}{c}{params (M)} & \multicolumn{2}{c}{FLOPs (G)} \\" in complexity_part
    assert r"\cmidrule(lr){3-4}\cmidrule(lr){5-6}" in complexity_part
    assert complexity_part.count(r"\midrule") == 5, "below title and head, and between the four backbones"
    assert r"HCFormer & R50 & 735 {\footnotesize(725--760)} & 1035 {\footnotesize(1025--1060)} \\" in latency_part
    assert r"Small scale, synthetic\_panoptic: not comparable with the paper's numbers (measured)" in small
    assert r"HCFormer+ & small & \textbf{36.0} {\footnotesize(35.0--37.0)} &" in small
    assert "% Machine: Example CPU @ 2.00GHz, 2 cores, no GPU\n" in text


def test_special_characters_print_as_themselves():
    assert escape(r"50 % of a_b & {c} #1 $x$") == r"50 \% of a\_b \& \{c\} \#1 \$x\$"
    assert escape("a\\b~c^d<e>") == (
        r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\textless{}e\textgreater{}"
    )
    check("\\begin{tabular}{l}\n" + escape(r"\~^_%&{}$#<>") + " \\\\\n\\end{tabular}\n")


def test_names_from_records_cannot_leave_the_comment(tmp_path):
    store = Store(tmp_path)
    store.write(complexity(cpu="A\n\\input{B}"))
    text = render_latex(table_cells(get_table("table1"), store))
    assert r"% Machine: A \input{B}, 2 cores" in text
    check(text)
