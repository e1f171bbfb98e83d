"""The project's tasks. `nox -s reproduce_table1` is the main job, `nox -s tests` the check of everything."""

from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests"]

LOCK = "requirements.lock"


def install(session: nox.Session) -> None:
    """The tested versions of everything, then this project itself, in place."""
    session.install("-r", LOCK)
    session.install("--no-deps", "-e", ".")


@nox.session
def reproduce_table1(session: nox.Session) -> None:
    """Measure what is missing of Table 1 and print it; options go to `bench run table1`, e.g. `-- --force`."""
    install(session)
    session.run("bench", "run", "table1", *session.posargs)


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
def tests(session: nox.Session) -> None:
    """Lint, format check and tests; options go to pytest."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("pytest", *session.posargs)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Renew the lock file from pyproject.toml."""
    session.run(
        "uv", "pip", "compile", "--universal", "--python-version", "3.11", "--extra", "test", "--upgrade",
        "--no-header", "--no-emit-index-url", "pyproject.toml", "-o", LOCK, external=True,
    )  # fmt: skip
