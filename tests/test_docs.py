"""README and docs: links, commands, examples and the numbers that they quote from the committed run."""

import csv
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")), *sorted(ROOT.glob("docs/*.md"))]
REFERENCE = ROOT / "results" / "reference"
MEDIAN_AND_RANGE = re.compile(r"\d+(?:\.\d+)?\s\(\d[\d.]*\.\.\d[\d.]*\)")  # 53.0 (51.2..53.6)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def squeezed(text: str) -> str:
    """With single spaces and without bold."""
    return " ".join(text.replace("**", "").split())


def committed(pattern: str) -> str:
    return "\n".join(squeezed(path.read_text(encoding="utf-8")) for path in sorted(REFERENCE.glob(pattern)))


def test_readme_is_short_and_has_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 130
    commands = [block.strip() for block in blocks(ROOT / "README.md", "")]
    assert commands[0] == 'pip install "nox[uv]" && nox -s reproduce_table1'
    assert commands[1] == 'pip install "nox[uv]" && nox -s tests'


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [title.lower().replace(" ", "-") for title in titles], f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_with_their_options(page, bench):
    """`bench COMMAND --OPTION` of every code block, against the help of the command."""
    lines = [line.partition("#")[0] for block in blocks(page, "") for line in block.splitlines()]
    for line in (line for line in lines if line.startswith("bench ") and "COMMAND" not in line):
        words = line.split()[1:]
        code, text, _ = bench(*words[: 2 if words[0] in ("data", "weights", "recipe") else 1], "--help")
        assert code == 0, f"{page.name}: {line}"
        for option in re.findall(r"--[a-z-]+", line):
            assert option[:18] in text, f"{page.name}: {line}"  # help for a narrow terminal cuts long names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_medians_are_those_of_the_committed_run(page):
    run = committed("claims.md") + committed("tables/*.md")
    for quoted in MEDIAN_AND_RANGE.findall(squeezed(page.read_text(encoding="utf-8"))):
        assert quoted in run, f"{page.name}: {quoted}"


def test_rows_in_readme_are_those_of_table_1():
    table = (REFERENCE / "tables" / "table1.md").read_text(encoding="utf-8").splitlines()
    rows = [line for block in blocks(ROOT / "README.md", "") for line in block.splitlines() if line.startswith("| ")]
    assert len(rows) == 6
    for row in rows:  # the first columns
        assert any(squeezed(line).startswith(squeezed(row)) for line in table), row


def test_sequences_and_counts_in_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    claims = committed("claims.md")
    for start in ("40.8", "49.1"):
        (sequence,) = re.findall(rf"{start}(?:, \d+\.\d)+", readme)
        assert re.search(" [<>=] ".join(map(re.escape, sequence.split(", "))), claims), sequence
    within, compared, off = map(int, re.search(r"\[(\d+) of (\d+) counts\].*?(\d+) are off", readme).groups())
    overview = squeezed((ROOT / "results" / "README.md").read_text(encoding="utf-8"))
    assert f"| all, counts | {within} | {off} |" in overview and compared == within + off


def test_ratios_of_speed_are_those_of_the_benchmark():
    ratios = json.loads((REFERENCE / "benchmark.json").read_text(encoding="utf-8"))["ratios"].values()
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| .+ / .+ \| (\d\.\d+) \|$", page, re.MULTILINE)
    assert quoted and {float(ratio) for ratio in quoted} <= {float(f"{ratio:.2g}") for ratio in ratios}


def test_figures_of_published_checkpoints_are_those_of_the_paper():
    """As far as the paper prints them."""
    tables = {"coco_panoptic": "table1", "coco_instance": "table2", "ade20k": "table3a", "cityscapes": "table3b"}
    printed = {}
    for dataset, table in tables.items():
        with (ROOT / "results" / "published" / f"{table}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                printed[row["method"], row["backbone"], dataset, row["metric"]] = row["published"]
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (\w+) \|.*\| (\w+) (\d+\.\d) \|$", (ROOT / "docs" / "checkpoints.md")
                      .read_text(encoding="utf-8"), re.MULTILINE)  # fmt: skip
    known = [(printed[tuple(what)], figure) for *what, figure in rows if tuple(what) in printed]
    assert len(rows) == 26 and len(known) == 18
    assert all(theirs == figure for theirs, figure in known)


def test_python_example_runs_and_prints_what_it_says(capsys):
    (example,) = blocks(ROOT / "README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    classes, masks, assignments = capsys.readouterr().out.splitlines()
    said = re.findall(r"# (\[[\d, ]+\])", example)
    assert [classes, masks] == [f"torch.Size({shape})" for shape in said]
    assert assignments.count("(1, 9,") == 3


def test_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {project['version']} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
