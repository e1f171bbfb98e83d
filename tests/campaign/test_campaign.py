"""A short form of the fault campaign; the long one is `python -m tests.campaign`."""

import subprocess
import sys

import pytest

from tests.campaign import kills, reduced_run, runners


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setenv("CAMPAIGN_SHORT", "1")


def test_killed_runs_end_with_the_tables_of_an_undisturbed_one(tmp_path):
    said = kills.campaign(tmp_path, kills=3, seed=1, report=print)
    assert said.startswith("passed: 3 kills"), said


def test_two_runs_share_a_store(tmp_path):
    said = runners.campaign(tmp_path, rounds=1, seed=1, report=print)
    assert said.startswith("passed: 1 rounds"), said


def test_hostile_files_are_refused():
    """In a process of its own: it forks for each file."""
    command = [sys.executable, "-m", "tests.campaign", "hostile", "--every", "5"]
    said = subprocess.run(command, cwd=reduced_run.ROOT, capture_output=True, text=True).stdout
    assert said.splitlines()[-1].startswith("passed: 15 files, 15 refused"), said
