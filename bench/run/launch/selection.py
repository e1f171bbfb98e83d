"""Which trainings a launch is about: rows and whole tables by name, filtered by seed, method and backbone."""

from collections.abc import Callable, Sequence

from bench.errors import BenchError, unknown_name
from bench.experiments.tables import find_row, get_table, table_and_row
from bench.records import Store
from bench.run.launch import plan
from bench.run.launch.plan import Training

SCALE = "small"  # of tables, where nothing else is asked for


def select_trainings(
    names: Sequence[str], store: Store, scale: str | None = None, seeds: Sequence[int] = (),
    methods: Sequence[str] = (), backbones: Sequence[str] = (),
) -> list[Training]:  # fmt: skip
    """The trainings of these rows (TABLE/METHOD-BACKBONE) and tables in the order of the names, each once.

    scale: of tables, default small; a row has its own. seeds, methods, backbones: only those, where given.
    Raises BenchError for an unknown name, a filter that fits nothing, and rows of several scales.
    """
    found: dict[tuple, Training] = {}
    for name in names:
        for training in _of_row(name, store) if "/" in name else _of_table(name, store, scale or SCALE):
            found.setdefault((training.experiment, training.seed), training)
    trainings = list(found.values())
    scales = {training.experiment.scale for training in trainings}
    if len(scales | ({scale} if scale else set())) > 1:
        raise BenchError("one launch is of one scale: name tables with --scale, or rows of that scale alone")
    chosen: list[tuple[str, Sequence, Callable[[Training], object]]] = [
        ("seed", seeds, lambda training: training.seed),
        ("method", methods, lambda training: training.experiment.method),
        ("backbone", backbones, lambda training: training.experiment.backbone),
    ]
    for kind, wanted, of in chosen:
        known = {str(of(training)) for training in trainings}
        for value in wanted:
            if str(value) not in known:
                raise unknown_name(f"{kind} of {' '.join(names)}", str(value), known)
    left = [t for t in trainings if all(not wanted or of(t) in wanted for _, wanted, of in chosen)]
    if not left:
        raise BenchError(f"no training of {' '.join(names)} fits --seeds, --methods and --backbones together")
    return left


def _of_table(name: str, store: Store, scale: str) -> list[Training]:
    if not (found := plan.find_trainings(get_table(name), store, scale)):
        raise BenchError(f"{name} has no trainings at {scale} scale: give another --scale")
    return found


def _of_row(name: str, store: Store) -> list[Training]:
    table = table_and_row(name)[0]
    experiment = find_row(name)
    found = [t for t in plan.find_trainings(table, store, experiment.scale) if t.experiment == experiment]
    if not found:
        raise BenchError(f"{name} is not trained here: choose another row, `bench list rows` has them")
    return found
