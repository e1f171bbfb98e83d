"""The paper's tables by name, and their rows by name, as `results/published` and `declarations.py` declare them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from bench.errors import BenchError, unknown_name
from bench.experiments.backbones import BACKBONES, TIMM, Backbone, get_backbone
from bench.experiments.declarations import DECLARATIONS, SmallModels
from bench.experiments.experiment import Experiment, experiment
from bench.experiments.methods import METHODS, get_method
from bench.experiments.published import Note, PrintedRow, load_notes, load_rows
from bench.experiments.table import PaperTable, Row, SmallBlock


class _Tables(Mapping[str, PaperTable]):
    """All tables by name; the file of one is read when it is asked for."""

    def __getitem__(self, name: str) -> PaperTable:
        return _table(name)

    def __iter__(self) -> Iterator[str]:
        return iter(DECLARATIONS)

    def __len__(self) -> int:
        return len(DECLARATIONS)

    def __contains__(self, name: object) -> bool:
        return name in DECLARATIONS


TABLES: Mapping[str, PaperTable] = _Tables()


def get_table(name: str) -> PaperTable:
    """The table called `name`; TABLE@BACKBONE, e.g. table1@timm:convnext_tiny, has TABLE's methods with that backbone.

    Raises BenchError naming the nearest known table or backbone, or what is wrong in the table's file.
    """
    name, at, backbone = name.partition("@")
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    return _table(name, backbone) if at else TABLES[name]


def table_and_row(name: str) -> tuple[PaperTable, Row]:
    """The table and the row of TABLE/ROW, also of a method that is not built here.

    Raises BenchError, naming the nearest row, for an unknown one.
    """
    of_table, slash, row_name = name.partition("/")
    if not slash:
        raise BenchError(f"'{name}' names no row of a table: write TABLE/METHOD-BACKBONE, e.g. table1/hcformer-r50")
    table = get_table(of_table)
    if "@" not in of_table and row_name.partition("-")[2].startswith(TIMM):
        table = _table(of_table, row_name.split("-")[1])
    rows = {row.name: row for row in (*table.rows, *table.small_rows)}
    if row_name not in rows:
        raise unknown_name(f"row of {of_table}", row_name, rows)
    return table, rows[row_name]


def find_row(name: str) -> Experiment:
    """The experiment of the row TABLE/METHOD-BACKBONE, e.g. table1/hcformer-r50, table1/hcformer+-swin_l.

    Where rows share that, what tells them apart follows, as their table declares it: table5/hcformer-r50-layers16,
    tableIV/hcformer-r50-coco_panoptic-queries20, tableIb/hc_fcn_32s-small-conv. Any backbone of timm can stand in the
    place of the table's own: table1/hcformer-timm:convnext_tiny, and -small after it for the small model.
    Raises BenchError for an unknown row, naming the nearest, and for one whose method is not built here.
    """
    row = table_and_row(name)[1]
    if row.experiment is None:
        raise BenchError(f"{row.method} of {name} is not built here: choose another row, `bench list rows` has them")
    return row.experiment


def experiment_of(key: str) -> Experiment:
    """The experiment of any table's row whose key that is. Raises BenchError where none has it, as of small models
    that have changed since."""
    backbone = key.split("-")[1] if "-" in key else ""
    timm = TIMM + backbone.removeprefix("timm_") if backbone.startswith("timm_") else None
    for table in _tables_with(timm) if timm else TABLES.values():
        found = next((experiment for experiment in row_names(table).values() if experiment.key == key), None)
        if found:
            return found
    raise BenchError(f"'{key}' is the key of no row: `bench list rows` has them all")


def row_names(table: PaperTable) -> dict[str, Experiment]:
    """The experiments of a table, paper scale and small, by the names that `find_row` takes after the table's."""
    return {row.name: row.experiment for row in (*table.rows, *table.small_rows) if row.experiment}


def latency_bases(experiment: Experiment) -> tuple[Experiment, ...]:
    """What any table or claim compares the latency of this experiment with, in the tables' order; not itself.

    Of one that no table declares: any table with its backbone.
    """
    from bench.experiments.claims import compared_latencies  # which finds its rows here

    if experiment.scale != "paper":
        return ()
    tables = [table for table in TABLES.values() if table.has_row(experiment)]
    tables = tables or list(_tables_with(experiment.backbone))
    rows = [(table, row) for table in tables for row in table.rows if row.experiment == experiment]
    bases = dict.fromkeys(base.experiment for table, row in rows if (base := table.base_of(row)))
    bases |= dict.fromkeys(compared_latencies().get(experiment, ()))
    return tuple(e for e in bases if e and e != experiment and get_method(e.method).timed)


def _tables_with(backbone: str) -> Iterator[PaperTable]:
    """All tables that can have the backbone, with it."""
    for name in TABLES:
        try:
            yield _table(name, backbone)
        except BenchError:  # none of its methods is built on it
            continue


def names_for_find_row(table: PaperTable) -> dict[Experiment, str]:
    """What `find_row` takes for each experiment of the table."""
    return {experiment: f"{table.name}/{row}" for row, experiment in row_names(table).items()}


@cache
def _table(name: str, backbone_name: str | None = None) -> PaperTable:
    """The table as declared or, as far as its methods are built on it, with another backbone: nothing of that is
    printed."""
    declared, backbone = DECLARATIONS[name], None if backbone_name is None else get_backbone(backbone_name)
    printed = load_rows(name) if declared.printed else []
    if backbone:
        printed = _with_backbone(printed, backbone) if "paper" in backbone.scales else []
        if not printed:
            raise BenchError(
                f"no row of {name} can have the backbone '{backbone.name}': `bench list backbones` has others"
            )
    numbers = {row.name: number for number, row in enumerate(printed, start=1)}
    rows = [replace(build_row(numbers[row.name], row, declared.dataset), base=numbers.get(row.base)) for row in printed]
    built = [row for row, of in zip(printed, rows, strict=True) if of.experiment]
    blocks, first = [], len(rows) + 1
    for small in declared.small if backbone is None or "small" in backbone.scales else ():
        blocks.append(_small_block(small, built, first, backbone))
        first += len(blocks[-1].rows)
    notes = tuple(_note(note) for note in declared.notes)
    table = PaperTable(name, declared.title, declared.dataset, declared.columns, tuple(rows), tuple(blocks), notes)
    if backbone is None:
        return replace(table, printed=declared.printed)
    return replace(
        table, name=f"{name}@{backbone.name}", title=f"{table.title}, with {backbone.label}", notes=(), printed=False
    )


def _small_block(small: SmallModels, built: list[PrintedRow], first: int, backbone: Backbone | None) -> SmallBlock:
    """The block's rows, numbered from `first`. built: the table's own that are built here."""
    declared = [*(_with_backbone(built, BACKBONES["small"]) if small.like_table else ()), *small.rows]
    if backbone:
        declared = _with_backbone(declared, backbone, "-small")
    rows = tuple(build_row(number, row, small.dataset, "small") for number, row in enumerate(declared, start=first))
    return SmallBlock(rows, small.columns, tuple(_note(note).text for note in small.notes))


def _with_backbone(rows: Iterable[PrintedRow], backbone: Backbone, ending: str = "") -> list[PrintedRow]:
    """Each method with each of its factors once with that backbone, as far as it is built on it."""

    def named(name: str) -> str:
        method, _, *more = name.split("-", 2)
        return "-".join([method, backbone.name + ending, *more])

    moved: dict[str, PrintedRow] = {}
    for row in rows:
        method = METHODS.get(row.name.partition("-")[0])
        if method and backbone.family in method.backbones:
            base = named(row.base) if row.base else ""
            of = replace(row, name=named(row.name), backbone=backbone.label, base=base)
            moved.setdefault(of.name, of)
    return list(moved.values())


def build_row(number: int, printed: PrintedRow, dataset: str, scale: str = "paper") -> Row:
    """The row with its experiment. Raises BenchError, naming file and line, for one that cannot be built."""
    what = None
    try:
        factors: dict[str, Any] = {"dataset": dataset} | printed.factor_values()
        method, dash, rest = printed.name.partition("-")
        if not dash:
            raise BenchError(f"name '{printed.name}' must be METHOD-BACKBONE, e.g. hcformer-r50")
        if _is_built(method, printed):
            what = experiment(method, rest.partition("-")[0], factors.pop("dataset"), scale, **factors)
    except (BenchError, TypeError) as error:  # a factor that is none of Experiment's can be an argument already given
        raise BenchError(f"{printed.place}: {error}") from error
    return Row(number, printed.name, printed.method, printed.backbone, what)


def _is_built(method: str, printed: PrintedRow) -> bool:
    """Raises BenchError for a name that nobody has, where label or factors say that it is meant to be built here."""
    if method in METHODS:
        return True
    if printed.factors or printed.method.partition(", ")[0] in (of.label for of in METHODS.values()):
        raise unknown_name("method", method, METHODS)
    return False


def _note(name: str) -> Note:
    notes = _notes()
    if name not in notes:
        raise unknown_name("note", name, notes)
    return notes[name]


@cache
def _notes() -> dict[str, Note]:
    return load_notes()
