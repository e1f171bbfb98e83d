"""A user id without an account, as under `docker --user 12345`, by the real system calls."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "-U", "--map-user=12345", "--map-group=12345")
ASKS = """
import getpass
from pathlib import Path
from bench.machine import stand_in_for_account
stand_in_for_account()
print(getpass.getuser(), Path.home())  # torch asks for both
"""


@pytest.fixture
def without_account(tmp_path):
    """without_account(arguments of Python, **environment) -> the ended process; its folder for files is tmp_path."""
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a user namespace")

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        variables = {**kept, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path), **environment}
        command = [*NAMESPACE, sys.executable, *arguments]
        return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=tmp_path)

    return run


def test_without_home_there_is_a_folder_of_its_own(without_account, tmp_path):
    name, home = without_account("-c", ASKS).stdout.split()
    assert (name, Path(home)) == ("12345", tmp_path / "hcformer-bench-12345")
    assert Path(home).stat().st_mode & 0o777 == 0o700
    assert without_account("-c", ASKS).stdout.split() == [name, home], "the same one again"


def test_a_home_that_is_set_stays(without_account, tmp_path):
    found = without_account("-c", ASKS, HOME=str(tmp_path / "mine")).stdout.split()
    assert found == ["12345", str(tmp_path / "mine")]


def test_a_link_in_the_place_of_its_folder_is_not_followed(without_account, tmp_path):
    (tmp_path / "hcformer-bench-12345").symlink_to(tempfile.mkdtemp(dir=tmp_path))
    ended = without_account("-m", "bench", "list", "tables")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "set HOME" in ended.stderr


def test_generated_data_without_a_place_names_the_variable(without_account):
    ended = without_account("-m", "bench", "data", "check", "synthetic_panoptic", HOME="/proc/nowhere")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "set XDG_CACHE_HOME" in ended.stderr
