"""Folders of the Hugging Face hub: shards with an index, a lone shard, `pytorch_model.bin`, `config.json`."""

import hashlib
import json
import pickle
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.experiments.experiment import experiment
from bench.weights.files import read_tensors, sha256
from bench.weights.hub_folder import MAX_CONFIG_BYTES, MAX_INDEX_BYTES, MAX_SHARDS
from bench.weights.load import open_weights
from tests.conftest import mistake
from tests.weights.checkpoints import official
from tests.weights.test_convert import hub_model

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4), "b.bias": torch.zeros(1)}
PARTS = (("a.weight",), ("b.weight", "b.bias"))


def write_shards(folder, ending=".safetensors", tensors=TENSORS, parts=PARTS, **index):
    """Shards as `save_pretrained` names them, and their index."""
    stem = "model" if ending == ".safetensors" else "pytorch_model"
    places = {}
    for number, names in enumerate(parts, start=1):
        file = folder / f"{stem}-{number:05}-of-{len(parts):05}{ending}"
        part = {name: tensors[name] for name in names}
        save_file(part, file) if ending == ".safetensors" else torch.save(part, file)
        places |= dict.fromkeys(names, file.name)
    path = folder / f"{stem}{ending}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 44}, "weight_map": places} | index))
    return path


def refusal(path):
    with pytest.raises(BenchError) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_shards_by_index_and_by_folder(tmp_path, ending):
    index = write_shards(tmp_path, ending)
    for path in (index, tmp_path):
        file = read_tensors(path)
        assert file.tensors.keys() == TENSORS.keys() and file.path == index
        assert all(torch.equal(file.tensors[name], value) for name, value in TENSORS.items())
        assert file.container == ("safetensors" if ending == ".safetensors" else "torch") + ", 2 shards"
        assert file.size == sum(part.stat().st_size for part in tmp_path.iterdir())
        listed = "".join(f"{sha256(part)}  {part.name}\n" for part in sorted(tmp_path.iterdir()))  # as sha256sum does
        assert file.sha256 == hashlib.sha256(listed.encode()).hexdigest()


def test_a_lone_shard_says_what_is_missing(tmp_path):
    index = write_shards(tmp_path)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    assert f"is one shard of 2: give the index of all of them, {index}" in refusal(first)
    second.unlink()
    assert f"needs {second.name} of its 2 shards" in refusal(index)
    assert f"needs {second.name} of its 2 shards" in refusal(tmp_path)
    index.unlink()
    for path in (first, tmp_path):
        assert f"is one shard of 2, without {second.name}, {index.name} beside it" in refusal(path)
    large = first.rename(tmp_path / "model-00001-of-99999.safetensors")
    assert "and 997 more beside it" in refusal(large) and MAX_SHARDS == 1000


def test_a_folder_without_weights(tmp_path):
    assert "give the weight file itself" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ('{"weight_map": {"a": "../model-00001-of-00002.safetensors"}}', "no name of a file beside it"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "no name of a file beside it"),
        ('{"weight_map": {"a": ".."}}', "no name of a file beside it"),
        ('{"weight_map": {"a": "x\\u0000y"}}', "no name of a file beside it"),
        ('{"weight_map": {"a": "..\\\\x"}}', "no name of a file beside it"),
        ('{"weight_map": {"a": 3}}', "a shard that is no text"),
        ('{"weight_map": {"a": ["x"]}}', "a shard that is no text"),
        ('{"weight_map": {"a.weight": "x", "a.weight": "y"}}', "'a.weight' twice"),
        ('{"weight_map": {}, "weight_map": {}}', "'weight_map' twice"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ("{}", "no weight_map"),
        ("[1]", "holds a list"),
        ('{"weight_map"', "is damaged"),
        ("", "is damaged"),
        ("\xff\xfe", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ('{"weight_map": ' + "1" * 10_000 + "}", "is damaged"),
        (json.dumps({"weight_map": {f"t{i}": f"s{i}" for i in range(MAX_SHARDS + 1)}}), "more than 1000 shards"),
        ("[" + " " * MAX_INDEX_BYTES + "]", "more than 4194304 bytes"),
    ],
)  # fmt: skip
def test_hostile_and_damaged_indices(tmp_path, index, said):
    path = write_shards(tmp_path)
    path.write_text(index, encoding="latin-1")
    tracemalloc.start()
    assert said in refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * MAX_INDEX_BYTES


def test_shards_and_index_that_contradict(tmp_path):
    path = write_shards(tmp_path, parts=(("a.weight", "b.weight"), ("b.weight", "b.bias")))
    assert "holds 'b.weight', of which model.safetensors.index.json says otherwise" in refusal(path)
    path = write_shards(tmp_path)
    places = json.loads(path.read_text())["weight_map"]
    path.write_text(json.dumps({"weight_map": places | {"c": places["a.weight"]}}))
    assert "model-00001-of-00002.safetensors lacks 'c'" in refusal(path)
    path.write_text(json.dumps({"weight_map": {"a.weight": places["a.weight"], "b.weight": places["b.weight"]}}))
    assert "holds 'b.bias', of which" in refusal(path)


def test_shards_are_read_as_strictly_as_any_file(tmp_path):
    path = write_shards(tmp_path, ".bin")
    marker = tmp_path / "it ran"

    class Command:
        def __reduce__(self):
            return open, (str(marker), "w")

    torch.save({"b.weight": torch.ones(4), "b.bias": Command()}, tmp_path / "pytorch_model-00002-of-00002.bin")
    assert "pytorch_model-00002-of-00002.bin is refused" in refusal(path) and not marker.exists()
    path = write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}" + bytes(30))
    assert "model-00002-of-00002.safetensors is " in refusal(path)


@pytest.mark.parametrize("layout", ["model.safetensors", "shards", "pytorch_model.bin"])
def test_a_folder_of_the_hub_is_converted_as_it_is(bench, tmp_path, layout):
    """As transformers writes it, nothing typed; shards and `.bin` from the same tensors."""
    torch.manual_seed(0)
    model, folder = hub_model("mask2former").half(), tmp_path / "hub"
    model.save_pretrained(folder, max_shard_size="60MB" if layout == "shards" else "5GB")
    if layout == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / layout)
    assert (folder / "model.safetensors.index.json").exists() == (layout == "shards")
    code, out, errors = bench("weights", "convert", folder, "-o", "o.safetensors")
    assert code == 0 and out.splitlines()[2] == "everything fits", errors
    opened = open_weights(tmp_path / "o.safetensors")
    assert opened.experiment == experiment("mask2former", "swin_s", "ade20k", "paper")
    assert opened.facts["source"] == "hub"
    expected = model.state_dict()["class_predictor.weight"].float()
    assert torch.equal(opened.tensors["class_predictor.weight"], expected)


@pytest.fixture
def folder(tmp_path):
    """A hub folder with weights that are not read before the names are right: they are none."""
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    config = {"model_type": "mask2former", "id2label": {str(i): f"class {i}" for i in range(133)}}
    config["backbone_config"] = {"model_type": "swin", "embed_dim": 96, "depths": [2, 2, 18, 2]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--method", "maskformer"), "its config.json says mask2former, --method says maskformer"),
        (("--backbone", "r50"), "its config.json says swin_s, --backbone says r50"),
        (("--dataset", "ade20k"), "its config.json has 133 classes"),
        (("--method", "mask2fromer"), "did you mean 'mask2former'"),
        (("--dataset", "coco"), "unknown data set 'coco'"),
        (("--backbone", "swin_x"), "unknown backbone 'swin_x'"),
    ],
)
def test_what_is_typed_wrong_is_refused_before_the_weights_are_read(bench, folder, typed, said):
    for path in (folder, folder / "model.safetensors"):
        mistake(bench("weights", "convert", path, *typed, "-o", "o.safetensors"), said)
    mistake(bench("weights", "convert", folder, "-o", "o.safetensors"), "is no weight file")


def test_config_and_weights_of_two_models(bench, folder):
    torch.manual_seed(0)
    chosen = experiment("hcformer", "r50", "coco_panoptic", "paper", decoder_layers=1, num_queries=5)
    save_file(official(chosen), folder / "model.safetensors")
    mistake(
        bench("weights", "convert", folder, "-o", "o.safetensors"), "holds HCFormer, its config.json says mask2former"
    )
    code, out, _ = bench("weights", "inspect", folder)
    assert code == 0 and "unclear: holds HCFormer, its config.json says mask2former" in out
    (folder / "model.safetensors").rename(folder / "mine.safetensors")  # the config is of the hub's names alone
    assert bench("weights", "convert", folder / "mine.safetensors", "-o", "o.safetensors")[0] == 0


@pytest.mark.parametrize("content", [b"[", b"[]", b"\xff", b"{" + b" " * MAX_CONFIG_BYTES + b"}", b'{"a":' * 99_999])
def test_damaged_configs(bench, folder, content):
    (folder / "config.json").write_bytes(content)
    mistake(bench("weights", "convert", folder, "-o", "o.safetensors"), "config.json")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": ["x"], "id2label": 3, "backbone_config": {"model_type": {}, "embed_dim": [], "depths": {}}},
        {"model_type": "bert", "backbone_config": {"embed_dim": 96, "depths": [1, 2, "18", 4]}},
        {"model_type": None, "backbone_config": {"embed_dim": [1], "depths": [1, 2, 18, 4]}},
    ],
)
def test_configs_that_say_nothing(bench, folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    mistake(bench("weights", "convert", folder, "--method", "maskformer", "-o", "o.safetensors"), "is no weight file")


def test_a_pickle_in_the_name_of_the_hub(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"model": {"a": print}}))
    assert "builtins.print" in refusal(tmp_path)
