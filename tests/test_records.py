"""Records and stores: schema, round trip, damage, crashes, several processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import bench.files
from bench.errors import BenchError
from bench.experiments import RECIPES, Recipe, inference_rules, recipe_for
from bench.experiments.methods import SMALL_SIZES
from bench.files import write_atomically
from bench.provenance import collect, git_state
from bench.records import Record, Store
from tests.report.fakes import PROVENANCE, R50, SMALL, WEIGHTS, accuracy, complexity, latency, released

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_schema_of_the_file(store):
    path = store.write(accuracy(seed=2))
    assert path == store.path / "records" / SMALL.key / "accuracy-2.json"
    content = json.loads(path.read_text())
    assert set(content) == set(
        "schema kind seed key experiment recipe recipe_hash metrics samples details provenance".split()
    )
    assert content["schema"] == 1 and content["kind"] == "accuracy" and content["seed"] == 2
    assert content["experiment"] == SMALL.to_dict()
    assert content["recipe"] == recipe_for(SMALL).to_dict()
    assert len(content["recipe_hash"]) == 8
    assert content["metrics"]["PQ"] == {"value": 35.0, "unit": "%", "n": 100}


@pytest.mark.parametrize("record", [complexity(), latency(), accuracy(), released()], ids=lambda record: record.kind)
def test_round_trip(store, record):
    store.write(record)
    assert store.get(record.experiment, record.kind, record.seed) == record
    assert store.load_all() == [record]
    assert store.state(record.experiment, record.kind, record.seed) == "done"


def test_missing(store):
    assert store.get(R50, "complexity") is None
    assert store.state(R50, "complexity") == "missing"
    assert store.load_all() == [] and not store.path.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 0},
        {"kind": "accuracy"},
        {"recipe": {"iterations": 1}},
        {"metrics": {}},
        {"metrics": {"params": {"value": float("nan"), "unit": "M", "n": 1}}},
        {"metrics": {"params": {"value": 1.0, "unit": "M", "n": 0}}},
        {"metrics": {"params": {"value": True, "unit": "M", "n": 1}}},
        {"metrics": {"params": 1.0}},
        {"provenance": {}},
        {"samples": None},
    ],
)
def test_malformed_records_cannot_be_made(change):
    with pytest.raises(ValueError):
        replace(complexity(), **change)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 0},
        {"recipe": recipe_for(SMALL)},
        {"details": {}},
        {"details": {"weights": "maskformer.safetensors"}},
        {"details": {"weights": {name: value for name, value in WEIGHTS.items() if name != "source"}}},
        {"details": {"weights": WEIGHTS | {"sha256": "0123"}}},
        {"details": {"weights": WEIGHTS | {"sha256": None}}},
        {"details": {"weights": WEIGHTS | {"file": None}}},
    ],
)
def test_released_record_says_which_file_it_is_of(change):
    with pytest.raises(ValueError):
        replace(released(), **change)


def test_file_of_a_released_record(store):
    path = store.write(released())
    assert path == store.path / "records" / R50.key / "released.json"
    content = json.loads(path.read_text())
    assert (content["seed"], content["recipe"], content["recipe_hash"]) == (None, None, None)
    assert content["details"]["weights"] == WEIGHTS
    path.write_text(path.read_text().replace(WEIGHTS["sha256"], "x" * 64))
    with pytest.raises(BenchError, match=r"released\.json is damaged or foreign \(details\['weights'\]"):
        store.load_all()


def test_unknown_kind():
    with pytest.raises(BenchError, match="unknown record kind 'latencies': did you mean 'latency'"):
        replace(complexity(), kind="latencies")


def test_a_new_record_takes_the_place_of_an_existing_one(store):
    store.write(complexity(params=1.0))
    store.write(complexity(params=2.0))
    assert store.get(R50, "complexity").metrics["params"]["value"] == 2.0


def test_record_of_another_recipe_is_stale(store, monkeypatch):
    store.write(accuracy())
    pair = (SMALL.dataset, SMALL.scale)
    monkeypatch.setitem(RECIPES, pair, replace(RECIPES[pair], learning_rate=1.0))
    assert store.state(SMALL, "accuracy", 0) == "stale"
    store.write(accuracy())
    assert store.state(SMALL, "accuracy", 0) == "done"


def test_recipe_of_an_earlier_version_is_stale_not_broken(store):
    store.write(replace(accuracy(), recipe={"iterations": 1, "gone": True}))
    assert store.state(SMALL, "accuracy", 0) == "stale"


def test_record_from_before_a_field_existed_is_current(store):
    recipe = recipe_for(SMALL).to_dict()
    del recipe["clip_norm"], recipe["pretrained"]
    store.write(replace(accuracy(), recipe=recipe))
    assert store.state(SMALL, "accuracy", 0) == "done"


def test_another_default_makes_a_record_stale_not_broken(store, monkeypatch):
    store.write(accuracy())
    pair = (SMALL.dataset, SMALL.scale)
    monkeypatch.setattr(Recipe.__dataclass_fields__["clip_norm"], "default", 1.0)
    monkeypatch.setitem(RECIPES, pair, replace(RECIPES[pair], clip_norm=1.0))
    assert store.state(SMALL, "accuracy", 0) == "stale"


def test_another_post_processing_makes_a_record_stale(store, monkeypatch):
    facts = {"post_processing": inference_rules.post_processing(SMALL)}
    store.write(replace(accuracy(), details=facts))
    store.write(replace(released(), details=facts | {"weights": WEIGHTS, "test_shorter_side": 800}))
    assert (store.state(SMALL, "accuracy", 0), store.state(R50, "released")) == ("done", "done")
    monkeypatch.setattr(inference_rules, "_POST_PROCESSING", "version 9")
    assert (store.state(SMALL, "accuracy", 0), store.state(R50, "released")) == ("stale", "stale")


def test_another_test_size_makes_the_record_of_a_checkpoint_stale(store):
    store.write(replace(released(), details={"weights": WEIGHTS, "test_shorter_side": 640}))
    assert store.state(R50, "released") == "stale"


def test_records_of_other_small_models_are_left_out_not_damaged(store, monkeypatch):
    store.write(accuracy())
    old = SMALL.key
    monkeypatch.setitem(SMALL_SIZES, "width", SMALL_SIZES["width"] + 1)
    (record,) = store.load_all()
    assert record.key == old != SMALL.key and not record.is_current
    assert store.state(SMALL, "accuracy", 0) == "missing"
    store.write(accuracy())
    assert [r.is_current for r in store.load_all()].count(True) == 1


def _damage(path: Path, how: str) -> None:
    text = path.read_text()
    content = json.loads(text)
    texts = {
        "truncated": text[: len(text) // 2],
        "empty": "",
        "binary": None,
        "list": "[]",
        "schema": json.dumps(content | {"schema": 99}),
        "missing field": json.dumps({k: v for k, v in content.items() if k != "metrics"}),
        "metric": json.dumps(content | {"metrics": {"params": {"value": None, "unit": "M", "n": 1}}}),
        "nan": text.replace("38.39", "NaN"),
        "edited factor": text.replace('"num_queries": 100', '"num_queries": 50'),
        "edited method": text.replace('"method": "hcformer"', '"method": "nonsense"'),
        "seed": json.dumps(content | {"seed": "0"}),
        "provenance": json.dumps(content | {"provenance": []}),
    }
    path.write_bytes(b"\xff\xfe\x00") if texts[how] is None else path.write_text(texts[how])


@pytest.mark.parametrize(
    "how",
    "truncated,empty,binary,list,schema,missing field,metric,nan,edited factor,edited method,seed,provenance".split(
        ","
    ),
)
def test_damaged_record_is_one_line_naming_file_and_remedy(store, how):
    path = store.write(complexity())
    _damage(path, how)
    for read in (store.load_all, lambda: store.state(R50, "complexity")):
        with pytest.raises(BenchError) as caught:
            read()
        message = str(caught.value)
        assert str(path) in message and "delete it and run again" in message and "\n" not in message


def test_edited_recipe_is_found(store):
    path = store.write(accuracy())
    path.write_text(path.read_text().replace('"batch_size": 8', '"batch_size": 16'))
    with pytest.raises(BenchError, match="recipe hash"):
        store.load_all()


def test_record_under_another_name_is_refused(store):
    path = store.write(complexity())
    path.rename(path.with_name("latency.json"))
    with pytest.raises(BenchError, match="another measurement"):
        store.load_all()


def test_crash_before_the_rename_leaves_no_record(store, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.files.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        store.write(complexity())
    monkeypatch.undo()
    assert store.state(R50, "complexity") == "missing"


def test_leftover_of_a_killed_writer_is_ignored(store):
    path = store.write(complexity())
    (path.parent / ".latency-abc.tmp").write_text('{"schema": 1, "kin')
    (path.parent / ".latency.json").write_text("{")
    assert len(store.load_all()) == 1 and store.state(R50, "latency") == "missing"
    store.write(latency())
    assert len(store.load_all()) == 2


def test_old_file_survives_a_crash_while_replacing(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write_atomically(path, "old")

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


WRITER = """
import sys
from bench.records import Store
from tests.report.fakes import accuracy, complexity
store, me = Store(sys.argv[1]), int(sys.argv[2])
sys.stdin.readline()
for seed in range(me, 40, 2):
    store.write(complexity(params=float(me + 1)))
    store.write(accuracy(seed=seed))
    store.load_all()
"""


def test_two_processes_write_at_once(store):
    command = [sys.executable, "-c", WRITER, str(store.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    writers = [subprocess.Popen([*command, str(me)], **pipes) for me in range(2)]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert store.get(R50, "complexity").metrics["params"]["value"] in (1.0, 2.0)
    assert len(store.load_all()) == 41


CLAIMER = """
import sys
from bench.records import Store
from tests.report.fakes import SMALL
with Store(sys.argv[1]).claim(SMALL, "accuracy", 0) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
"""


def test_claim_excludes_another_process_and_ends_with_it(store):
    holder = subprocess.Popen(
        [sys.executable, "-c", CLAIMER, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert holder.stdout.readline().strip() == "True"
    with store.claim(SMALL, "accuracy", 0) as mine:
        assert not mine
    with store.claim(SMALL, "accuracy", 1) as mine:
        assert mine
    holder.kill()
    holder.communicate(timeout=60)
    with store.claim(SMALL, "accuracy", 0) as mine:
        assert mine


def test_scratch_dir_is_apart_from_records(store):
    folder = store.scratch_dir(SMALL, "accuracy", 1)
    assert folder.is_dir() and folder == store.path / "work" / SMALL.key / "accuracy-1"
    assert store.load_all() == []


def test_provenance_fits_a_record(store):
    provenance = collect(["bench", "run", "a b"], dataset_fingerprint="abc") | {"duration_s": 1.0}
    assert set(PROVENANCE) <= set(provenance)
    assert provenance["command"] == "bench run 'a b'" and provenance["dataset_fingerprint"] == "abc"
    assert provenance["cores"] >= 1 and provenance["threads"] >= 1
    record = replace(complexity(), provenance=provenance)
    store.write(record)
    assert store.load_all() == [record]


def test_git_state(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == ("unknown", None)

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("a")
    git("add", ".")
    git("commit", "-m", "first")
    commit, dirty = git_state(tmp_path)
    assert len(commit) == 40 and dirty is False
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "record.json").write_text("{}")
    assert git_state(tmp_path) == (commit, False)
    (tmp_path / "code.py").write_text("b")
    assert git_state(tmp_path) == (commit, True)


def test_record_is_rejected_by_a_reader_of_another_schema():
    with pytest.raises(ValueError, match="schema 2"):
        Record.from_dict(complexity().to_dict() | {"schema": 2})
