"""Weight files as their own libraries write them, damaged ones, and ones that mean harm."""

import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.weights.files import read_tensors, sha256
from bench.weights.torch_files import MAX_ENTRIES

WRITERS = ["safetensors", "pickle", "torch", "legacy torch"]


def state_dict() -> OrderedDict:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 7).half())
    state = network.state_dict()
    state.update(empty=torch.zeros(0, 3), byte=torch.arange(3, dtype=torch.uint8), double=torch.rand(2, 2).double())
    return state


def write(writer: str, path: Path, content: dict) -> Path:
    if writer == "safetensors":
        save_file(content, path, metadata={"source": "a test"})
    elif writer == "pickle":
        arrays = {name: tensor.numpy() for name, tensor in content.items()}
        path.write_bytes(
            pickle.dumps({"model": arrays, "__author__": "a test", "matching_heuristics": True}, protocol=2)
        )
    else:
        torch.save({"model": content}, path, _use_new_zipfile_serialization=writer == "torch")
    return path


def assert_equal(tensors: dict, expected: dict) -> None:
    assert list(tensors) == list(expected) or tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape), name
        assert torch.equal(tensor, expected[name]) and tensor.is_contiguous() and type(tensor) is torch.Tensor, name
        tensor.zero_()  # writable


@pytest.mark.parametrize("writer", WRITERS)
def test_every_container_whatever_its_name(writer, tmp_path, recwarn):
    path = write(writer, tmp_path / "weights.bin", state_dict())
    before = path.read_bytes()
    file = read_tensors(path)
    assert_equal(file.tensors, state_dict())
    assert file.container == writer.removeprefix("legacy ")
    assert file.metadata == ({"source": "a test"} if writer == "safetensors" else {})
    assert file.other == (("__author__", "matching_heuristics") if writer == "pickle" else ())
    assert file.sha256 == sha256(path) == hashlib.sha256(before).hexdigest()
    assert path.read_bytes() == before
    assert not recwarn.list


@pytest.mark.parametrize("legacy", [False, True])
def test_training_checkpoint_as_torch_load_reads_it(legacy, tmp_path, recwarn):
    shared = torch.rand(5, 4)
    model = state_dict() | {
        "bfloat16": torch.rand(3).bfloat16(),
        "transposed": shared.t(),
        "part": shared[1:3, ::2],
        "whole": shared,
        "bool": torch.rand(4) > 0.5,
        "scalar": torch.tensor(3),
        "parameter": torch.nn.Parameter(torch.rand(2)),
        "version": 2,
    }
    optimizer = {
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.rand(2)}},
        "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "fused": None, "params": [0]}],
    }
    scheduler = {"milestones": Counter([3, 5]), "base_lrs": [1e-4], "size": torch.Size([1]), "type": torch.float32}
    states = {"optimizer": optimizer, "scheduler": scheduler, "iteration": 7, "device": torch.device("cpu")}
    torch.save({"model": model} | states, tmp_path / "x", _use_new_zipfile_serialization=not legacy)
    file = read_tensors(tmp_path / "x")
    expected = torch.load(tmp_path / "x", weights_only=True)["model"]
    expected.pop("version")
    assert_equal(file.tensors, {name: tensor.detach() for name, tensor in expected.items()})
    assert file.other == ("optimizer", "scheduler", "iteration", "device", "model.version")
    assert not recwarn.list


def test_where_the_state_dict_is(tmp_path):
    weights, path = {"a": torch.ones(2)}, tmp_path / "x"
    cases = [
        (weights, ()),
        (weights | {"epoch": 3}, ("epoch",)),
        ({"state_dict": weights, "epoch": 3}, ("epoch",)),
        ({"model": weights, "state_dict": {"b": torch.ones(1)}}, ("state_dict",)),
        ({"model": "swin", "state_dict": weights}, ("model",)),
    ]
    for content, other in cases:
        torch.save(content, path)
        file = read_tensors(path)
        assert (list(file.tensors), file.other) == (["a"], other)


@pytest.mark.parametrize(
    "content, said",
    [
        ([1, 2], "holds a list"),
        ({"model": {}, "epoch": 3}, "'model', 'epoch'"),
        ({}, "nothing"),
        (torch.ones(2), "single tensor"),
    ],
)
def test_files_without_a_state_dict_say_what_they_hold(content, said, tmp_path):
    torch.save(content, tmp_path / "x")
    assert said in refusal(tmp_path / "x")


def test_numpy_in_a_torch_file(tmp_path):
    """A best metric is often a scalar of numpy, and some converters save arrays."""
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    for legacy in (False, True):
        content = {"model": {"a": torch.ones(2), "array": array, "scalar": np.float32(2)}, "best": np.float64(0.5)}
        torch.save(content, tmp_path / "x", _use_new_zipfile_serialization=not legacy)
        file = read_tensors(tmp_path / "x")
        assert file.tensors["array"].tolist() == array.tolist() and file.tensors["scalar"] == 2
        assert file.other == ("best",)


def test_torch_files_of_a_big_endian_machine(tmp_path):
    one = np.ones(1, ">f4").tobytes()
    (tmp_path / "x").write_bytes(zipped(data_pkl=rebuilt(1, 0, (1,), (1,)), data__0=one, byteorder=b"big"))
    assert read_tensors(tmp_path / "x").tensors["a"].tolist() == [1]


def test_tied_weights_are_one_tensor(tmp_path):
    weight = torch.rand(100)
    torch.save({"a": weight, "b": weight}, tmp_path / "x")
    tensors = read_tensors(tmp_path / "x").tensors
    assert tensors["a"].data_ptr() == tensors["b"].data_ptr()


def test_large_torch_tensors_stay_in_the_file(tmp_path):
    torch.save({"a": torch.rand(4_000_000)}, tmp_path / "x")
    before = resident()
    tensor = read_tensors(tmp_path / "x").tensors["a"]
    assert resident() - before < 24e6 and len(tensor) == 4_000_000  # mapped pages alone, at most


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def refusal(path: Path) -> str:
    with pytest.raises(BenchError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.isprintable() and str(path) in message and ": " in message
    assert len(message) < len(str(path)) + 350
    return message


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    return {writer: write(writer, folder / writer, state_dict()).read_bytes() for writer in WRITERS}


@pytest.mark.parametrize("writer", WRITERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_files(writer, samples, tmp_path, data):
    content = samples[writer]
    size = data.draw(st.integers(0, 40) | st.integers(0, len(content) - 1) | st.just(len(content) - 1))
    (tmp_path / "x").write_bytes(content[:size])
    assert "download it again" in refusal(tmp_path / "x")


@pytest.mark.parametrize("writer", WRITERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_refused_or_read(writer, samples, tmp_path, data):
    content = bytearray(samples[writer])
    for _ in range(data.draw(st.integers(1, 3))):
        size = data.draw(st.sampled_from([1, 4, 8]))
        position = data.draw(st.integers(0, 1000) | st.integers(-1500, -1)) % (len(content) - size)
        content[position : position + size] = data.draw(st.sampled_from([b"\0", b"\xff", b"\x7f"])) * size
    (tmp_path / "x").write_bytes(content)
    try:
        file = read_tensors(tmp_path / "x")
    except BenchError:
        refusal(tmp_path / "x")
    else:
        assert sum(tensor.nbytes for tensor in file.tensors.values()) <= 4 * len(content)
        assert all(tensor.clone().is_contiguous() for tensor in file.tensors.values())


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"\n  <html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"404: Not Found\n", "no weight file"),
        (b"\x80", "no weight file"),
        (b"\x80\x01}.", "no weight file"),
        (b"PK\x03\x04", "damaged"),
        (b"\x1f\x8b" + bytes(30), "no weight file"),
    ],
)
def test_what_is_no_weight_file(content, said, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    assert said in refusal(tmp_path / "x.pth")


def test_missing_files_folders_and_pipes(tmp_path):
    assert "check its path" in refusal(tmp_path / "none.pkl")
    assert "is no file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in refusal(tmp_path / "pipe")
    with pytest.raises(BenchError, match="none.pkl"):
        sha256(tmp_path / "none.pkl")


# Files that mean harm. Each makes its content for a folder, in which `marker` must not appear.


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touching(folder: Path) -> list[Call]:
    return [Call(os.system, f"touch {folder}/marker"), Call(eval, f"open({str(folder / 'marker')!r}, 'w').close()")]


def saved(content: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zipped(compression: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in {"version": b"3\n", **entries}.items():
            archive.writestr(f"x/{name.replace('__', '/').replace('_pkl', '.pkl')}", content)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def rebuilt(numel: int, offset: int, size: tuple, stride: tuple, kind: str = "Float") -> bytes:
    """The pickle of {"model": {"a": tensor}} with these claims about storage "0"."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text("0") + text("cpu") + integer(numel)
    shapes = b"".join(b"(" + b"".join(map(integer, entry)) + b"t" for entry in (size, stride))
    arguments = b"(" + storage + b"tQ" + integer(offset) + shapes + b"\x89ccollections\nOrderedDict\n)Rt"
    return (
        b"\x80\x02}" + text("model") + b"}" + text("a") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rss."
    )


def legacy(body: bytes, numel: int, data: bytes) -> bytes:
    parts = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    body = body.replace(b"tQ", b"NtQ")  # no view
    return b"".join(parts) + body + pickle.dumps(["0"], protocol=2) + struct.pack("<q", numel) + data


def safetensors_file(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    header = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def numpy_file(shape: tuple, data: bytes, copies: int = 1) -> bytes:
    content = pickle.dumps({"model": {"a": np.frombuffer(data, np.uint8)}}, protocol=2)
    before = integer(len(data)) + b"\x85"
    assert content.count(before) == 1
    return content.replace(before, b"(" + b"".join(map(integer, shape)) + b"t")


def shared_array(names: int, size: int) -> bytes:
    array = np.zeros(size, np.uint8)
    return pickle.dumps({"model": {str(index): array for index in range(names)}}, protocol=4)


def rebuilt_often(names: int, size: int) -> bytes:
    """Many arrays from one memoised run of bytes."""
    data = text("bytes") + b"B" + struct.pack("<I", size) + bytes(size) + b"q\x00s"
    one = b"cnumpy.core.numeric\n_frombuffer\n(h\x00cnumpy\ndtype\nU\x02u1\x85R" + integer(size) + b"\x85U\x01CtR"
    entries = b"".join(text(str(index)) + one + b"s" for index in range(names))
    return b"\x80\x05}" + text("model") + b"}" + data + entries + b"s."


HUGE = {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}
HARM = {
    "pickle calls os.system": lambda folder: pickle.dumps(touching(folder)[0]),
    "pickle calls eval, nested": lambda folder: pickle.dumps({"model": {"a": touching(folder)[1]}}, protocol=2),
    "torch calls os.system": lambda folder: saved({"model": {"a": torch.ones(1)}, "b": touching(folder)[0]}),
    "torch calls eval": lambda folder: saved({"model": {"a": touching(folder)[1]}}),
    "legacy torch calls os.system": lambda folder: saved({"model": touching(folder)[0]}, legacy=True),
    "legacy torch calls eval first": lambda folder: (
        pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(touching(folder)[1], protocol=2)
    ),
    "torch bytearray": lambda folder: saved({"model": Call(bytearray, 10**11)}),
    "torch tensor class": lambda folder: saved({"model": Call(torch.Tensor, 10**10)}),
    "safetensors header of 2**60 bytes": lambda folder: safetensors_file(b'{"a": 1}', length=2**60),
    "safetensors header beyond the file": lambda folder: safetensors_file(b'{"a": 1}', length=10**6),
    "safetensors of terabytes": lambda folder: safetensors_file({"a": HUGE}, bytes(16)),
    "safetensors of overflowing shape": lambda folder: safetensors_file(
        {"a": HUGE | {"shape": [2**62, 4], "data_offsets": [0, 0]}}
    ),
    "safetensors of nested brackets": lambda folder: safetensors_file(b'{"a":' + b"[" * 500_000),
    "safetensors of wrong types": lambda folder: safetensors_file({"a\x1b[2J": {"dtype": "F33", "shape": [1]}}),
    "safetensors of many tensors": lambda folder: safetensors_file(
        {str(index): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(MAX_ENTRIES + 1)}
    ),
    "array of 10**13 numbers": lambda folder: numpy_file((10**13,), bytes(8)),
    "array of negative size": lambda folder: numpy_file((-1, -8), bytes(8)),
    "array under many names": lambda folder: shared_array(2_000, 10**7),
    "bytes in many arrays": lambda folder: rebuilt_often(2_000, 10**7),
    "a dictionary an instruction": lambda folder: b"\x80\x02" + b"}" * 20_000_000,
    "a mark an instruction": lambda folder: b"\x80\x02" + b"(" * 20_000_000,
    "a key as deep as the file": lambda folder: b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.",
    "compressed bomb": lambda folder: zipped(zipfile.ZIP_DEFLATED, data_pkl=bytes(100_000_000)),
    "compressed storage": lambda folder: zipped(
        zipfile.ZIP_DEFLATED, data_pkl=rebuilt(25 * 10**6, 0, (25 * 10**6,), (1,)), data__0=bytes(100_000_000)
    ),
    "zip of many entries": lambda folder: b"PK\x03\x04" + zipped(data_pkl=b"") + b"PK\x01\x02" * 2 * MAX_ENTRIES,
    "zip without data.pkl": lambda folder: zipped(weights=b"1"),
    "zip without the storage": lambda folder: zipped(data_pkl=rebuilt(2, 0, (2,), (1,))),
    "expanded tensor": lambda folder: zipped(data_pkl=rebuilt(1, 0, (10**6, 10**6), (0, 0)), data__0=bytes(4)),
    "strides beyond the storage": lambda folder: zipped(data_pkl=rebuilt(4, 0, (2, 2), (3, 1)), data__0=bytes(16)),
    "negative stride": lambda folder: zipped(data_pkl=rebuilt(4, 3, (4,), (-1,)), data__0=bytes(16)),
    "negative offset": lambda folder: zipped(data_pkl=rebuilt(4, -1, (4,), (1,)), data__0=bytes(16)),
    "offset beyond the storage": lambda folder: zipped(data_pkl=rebuilt(4, 1, (4,), (1,)), data__0=bytes(16)),
    "storage beyond its record": lambda folder: zipped(data_pkl=rebuilt(400, 0, (400,), (1,)), data__0=bytes(16)),
    "storage of terabytes": lambda folder: zipped(data_pkl=rebuilt(10**13, 0, (10**13,), (1,)), data__0=bytes(16)),
    "legacy storage of terabytes": lambda folder: legacy(rebuilt(10**13, 0, (10**13,), (1,)), 10**13, bytes(16)),
    "legacy storage of another size": lambda folder: legacy(rebuilt(10**13, 0, (4,), (1,)), 4, bytes(16)),
    "legacy expanded tensor": lambda folder: legacy(rebuilt(1, 0, (10**12,), (0,)), 1, bytes(4)),
    "quantised storage": lambda folder: zipped(data_pkl=rebuilt(4, 0, (4,), (1,), "QInt8"), data__0=bytes(16)),
}


HEAVY = {name for name in HARM if name.startswith(("a ", "bytes", "compressed", "zip of", "safetensors of many"))}


@pytest.mark.parametrize("name", [name for name in HARM if name not in HEAVY])
def test_harm_is_refused_in_one_line_and_nothing_runs(name, tmp_path):
    (tmp_path / "x.pth").write_bytes(HARM[name](tmp_path))
    message = refusal(tmp_path / "x.pth")
    assert any(remedy in message for remedy in ("download it again", "another source", "give "))
    assert not (tmp_path / "marker").exists()


SAID = {
    "small expanded tensor": (zipped(data_pkl=rebuilt(1, 0, (2,), (0,)), data__0=bytes(4)), "more numbers than"),
    "strides": (zipped(data_pkl=rebuilt(4, 0, (2, 2), (3, 1)), data__0=bytes(16)), "more numbers than"),
    "record": (zipped(data_pkl=rebuilt(5, 0, (5,), (1,)), data__0=bytes(16)), "claims 20 bytes, and has 16"),
    "negated": (saved({"a": torch._neg_view(torch.ones(3))}), "negated"),
    "compressed": (zipped(zipfile.ZIP_DEFLATED, data_pkl=rebuilt(1, 0, (1,), (1,)), data__0=bytes(4)), "compressed"),
    "legacy size": (legacy(rebuilt(4, 0, (4,), (1,)), 3, bytes(16)), "size"),
    "legacy claim": (legacy(rebuilt(5, 0, (5,), (1,)), 5, bytes(16)), "claim 20 bytes, more than it has"),
}


@pytest.mark.parametrize("content, said", SAID.values(), ids=SAID)
def test_refusals_say_why(content, said, tmp_path):
    (tmp_path / "x").write_bytes(content)
    assert said in refusal(tmp_path / "x")


def test_a_safetensors_length_may_look_like_a_pickle(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(0x280)
    (tmp_path / "x").write_bytes(safetensors_file(header, bytes(4)))
    assert read_tensors(tmp_path / "x").container == "safetensors"


def test_the_harmful_calls_would_have_run(tmp_path):
    for call in touching(tmp_path):
        pickle.loads(pickle.dumps(call))
        assert (tmp_path / "marker").exists()
        (tmp_path / "marker").unlink()


def test_the_hand_written_torch_files_are_right_without_their_claims(tmp_path):
    numbers = np.arange(4, dtype="<f4")
    body = rebuilt(4, 1, (1, 3), (3, 1))
    for content in (zipped(data_pkl=body, data__0=numbers.tobytes()), legacy(body, 4, numbers.tobytes())):
        (tmp_path / "x").write_bytes(content)
        assert read_tensors(tmp_path / "x").tensors["a"].tolist() == [[1, 2, 3]]
    (tmp_path / "x").write_bytes(numpy_file((2, 4), bytes(8)))
    assert read_tensors(tmp_path / "x").tensors["a"].shape == (2, 4)
    (tmp_path / "x").write_bytes(rebuilt_often(3, 1000))
    assert len(read_tensors(tmp_path / "x").tensors) == 3


CHILD = """
import resource, sys
from pathlib import Path
from bench.errors import BenchError
from bench.weights.files import read_tensors

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**30, mapped + 2**30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    before = peak()
    try:
        read_tensors(path)
        print(f"{path.name}: read")
    except BenchError as error:
        if peak() - before > 250 or "Memory" in str(error) or not str(error).isprintable():
            print(f"{path.name}: {peak() - before:.0f} MiB, {error}")
print("end")
"""


def test_harm_takes_little_memory(tmp_path):
    for name, make in HARM.items():
        (tmp_path / name.replace("/", " ")).write_bytes(make(tmp_path))
    root = Path(__file__).resolve().parents[2]
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, tmp_path], cwd=root, capture_output=True, text=True
    )
    assert (child.stdout.split("\n"), child.stderr) == (["end", ""], "")
