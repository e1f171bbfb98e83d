"""The project's tasks. `nox -s reproduce_table1` is the main job, `nox -s tests` the check of everything."""

from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests"]

LOCK = "requirements.lock"
PUBLISHED = Path(__file__).parent / "results" / "published"
PAPER_TABLES = sorted((path.stem for path in PUBLISHED.glob("*.csv")), key=str.casefold)  # so they stand in the paper


def install(session: nox.Session) -> None:
    """The tested versions of everything, then this project itself, in place."""
    session.env["PYTHONDONTWRITEBYTECODE"] = ""  # else each of a run's processes compiles torch anew, 5 s of a core
    session.install("-r", LOCK)
    session.install("--no-deps", "-e", ".")


def reproduce(table: str) -> None:
    """Declare the session reproduce_TABLE."""

    def session_of_table(session: nox.Session) -> None:
        install(session)
        session.run("bench", "run", table, *session.posargs)

    session_of_table.__doc__ = f"Measure what is missing of {table} and print it; options go to `bench run {table}`."
    nox.session(session_of_table, name=f"reproduce_{table}")


for table in PAPER_TABLES:
    reproduce(table)


@nox.session
def reproduce_all(session: nox.Session) -> None:
    """Measure what is missing of every table of the paper, one after the other; options go to each `bench run`.

    With --force a table's own run goes on where it stopped, but those before it are measured again.
    """
    install(session)
    failed = []
    for table in PAPER_TABLES:  # one whose jobs fail does not keep the others from being measured
        try:
            session.run("bench", "run", table, *session.posargs)
        except CommandFailed as failure:
            if getattr(failure, "return_code", None) in (130, 143):  # somebody stopped it; older nox does not tell
                raise
            failed.append(table)
    if failed:
        session.error(f"not complete: {', '.join(failed)}")


@nox.session
def small_real(session: nox.Session) -> None:
    """Train small models on CamVid and nuclei and print the table; options go to `bench run`: `-- --data-root DIR`."""
    install(session)
    session.run("bench", "run", "small_real", *session.posargs)


@nox.session
def benchmark(session: nox.Session) -> None:
    """Time clustering, decoding, whole networks and training steps; options go to `bench benchmark`."""
    install(session)
    Path("results/local").mkdir(parents=True, exist_ok=True)  # pytest-benchmark makes no folder
    session.run("pytest", "tests/benchmarks", "--benchmark-json=results/local/pytest-benchmark.json",
                "--benchmark-columns=median,iqr,rounds", "--benchmark-sort=mean")  # fmt: skip
    session.run("bench", "benchmark", *session.posargs)


@nox.session
def regression(session: nox.Session) -> None:
    """Measure a little again, compare with results/reference, fail on a breach; options go to `bench regression`."""
    install(session)
    session.run("bench", "regression", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Lint, format check, types and tests, a process a core; options go to pytest. CI=true tries more examples."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("pytest", "-n", "auto", "--dist", "worksteal", "-p", "no:benchmark", *session.posargs)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Renew the lock file from pyproject.toml."""
    session.run(
        "uv", "pip", "compile", "--universal", "--python-version", "3.11", "--extra", "test", "--upgrade",
        "--no-header", "--no-emit-index-url", "pyproject.toml", "-o", LOCK, external=True,
    )  # fmt: skip
