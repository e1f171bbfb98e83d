"""Reading a list of results in pieces gives what reading it at once gives."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.evaluation import result_file
from bench.evaluation.result_file import ResultFile

entries = st.fixed_dictionaries(
    {"image_id": st.integers(1, 3), "category_id": st.integers(1, 2), "score": st.floats(0, 1), "é, ]": st.text()},
    optional={"segmentation": st.lists(st.integers()), "bbox": st.just({"a": [1, {}]})},
)


@given(st.lists(entries, max_size=8), st.sampled_from([None, 1, 4]), st.booleans(), st.integers(1, 60))
def test_any_layout_in_any_pieces(tmp_path_factory, results, indent, ascii_only, chunk):
    path = tmp_path_factory.mktemp("results") / "instances.json"
    path.write_text(" " + json.dumps(results, indent=indent, ensure_ascii=ascii_only) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_file, "_CHUNK", chunk)
        read = ResultFile(path, {1, 2, 3}, {1, 2})
    for image_id in (1, 2, 3):
        used = ("image_id", "category_id", "score", "segmentation")
        found = [{key: entry.get(key) for key in used} for entry in read.of(image_id)]
        assert found == [{key: e.get(key) for key in used} for e in results if e["image_id"] == image_id]


GOOD = '{"image_id": 1, "category_id": 1, "score": 0.5}'


@pytest.mark.parametrize(
    "text",
    ["", "[", "{}", f"[{GOOD}", f"[{GOOD},", f"[{GOOD},]", f"[{GOOD} {GOOD}]", f"[{GOOD}] x", "[" * 100_000,
     f"[,{GOOD}]", f"[{GOOD[:-9]}]", f"[{GOOD.replace('0.5', '1' + '0' * 400)}]"],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_broken_files_are_said_in_one_line(tmp_path, monkeypatch, text, chunk):
    monkeypatch.setattr(result_file, "_CHUNK", chunk)
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(BenchError, match=r"^(?!.*\n).*instances.json is no JSON list of COCO results"):
        ResultFile(tmp_path / "instances.json", {1}, {1})
