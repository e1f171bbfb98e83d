"""The restricted unpickler against Python's own, and against pickles written to do harm."""

import io
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.weights.files import DAMAGE
from bench.weights.pickles import MAX_INSTRUCTIONS, Array, Refused, RestrictedUnpickler, measure, tensor_of

DTYPES = [order + code for order in "<>" for code in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")]
DTYPES += ["|i1", "|u1", "|b1"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def load(content: bytes) -> object:
    measure(io.BytesIO(content))
    return RestrictedUnpickler(io.BytesIO(content)).load()


def python2(value: object) -> bytes:
    """Protocol 2 as Python 2 writes it: text and array contents are byte strings (BINSTRING)."""
    if isinstance(value, str | bytes):
        content = value.encode("latin1") if isinstance(value, str) else value
        short = len(content) < 256
        return (b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(entry) for key, entry in value.items()) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2, value)) + b"t"
    if isinstance(value, np.dtype):
        state = (3, value.str[0], None, None, None, -1, -1, 0)
        return b"cnumpy\ndtype\n" + python2((value.str[1:], 0, 1)) + b"R" + python2(state) + b"b"
    if isinstance(value, np.ndarray):
        state = (1, value.shape, value.dtype, False, value.tobytes())
        start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + python2((0,)) + python2("b") + b"tR"
        return start + python2(state) + b"b"
    return pickle.dumps(value, protocol=2)[2:-1]


@given(arrays, st.sampled_from([2, 3, 4, 5]), st.booleans())
def test_arrays_of_every_type_order_and_protocol(array, protocol, fortran):
    array = np.array(array, order="F") if fortran else array
    loaded = load(pickle.dumps(array, protocol=protocol))
    _assert_same(loaded, array)


@given(arrays)
def test_arrays_of_python_2(array):
    content = b"\x80\x02" + python2({"model": array}) + b"."
    np.testing.assert_array_equal(pickle.loads(content, encoding="latin1")["model"], array)  # the writer above is right
    _assert_same(load(content)["model"], array)


def test_names_of_numpy_2():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for protocol in (2, 3, 5):
        content = pickle.dumps(array, protocol=protocol)
        assert b"numpy.core" in content or np.__version__ >= "2"
        renamed = content.replace(b"cnumpy.core.", b"cnumpy._core.").replace(
            b"\x12numpy.core.num", b"\x13numpy._core.num"
        )
        _assert_same(load(renamed), array)


def test_numpy_scalars_and_ordered_dictionaries():
    value = OrderedDict(count=np.int64(7), scale=np.float32(0.5))
    value.attribute = "lost"
    for content in (pickle.dumps(value, protocol=2), pickle.dumps(value, protocol=5)):
        loaded = load(content)
        assert [tensor_of(loaded["count"].view()).item(), tensor_of(loaded["scale"].view()).item()] == [7, 0.5]
        assert list(loaded) == ["count", "scale"]
    python2_items = b"\x80\x02ccollections\nOrderedDict\n(](" + python2(("a", 1)) + python2(("b", 2)) + b"etR."
    assert load(python2_items) == {"a": 1, "b": 2}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "name", ["builtins.eval", "os.system", "numpy.load", "builtins.getattr", "numpy.core.numeric.ones"]
)
def test_other_globals_are_refused_by_name(name, protocol):
    module, attribute = name.rsplit(".", 1)
    if protocol == 2:
        content = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"(U\x04truetR."
    else:
        content = (
            b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, attribute)) + b"\x93)R."
        )
    with pytest.raises(Refused, match=name.replace(".", r"\.")):
        load(content)


def test_dotted_attributes_and_control_characters_are_refused_on_one_line():
    for name in ("ndarray.tofile", "ndarray\n\x1b[2J"):
        text = b"\x8c\x05numpy" + b"\x8c" + bytes([len(name)]) + name.encode()
        with pytest.raises(Refused) as caught:
            load(b"\x80\x04" + text + b"\x93.")
        assert str(caught.value).isprintable()


NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
ODD = {
    "a call of an array": b"\x80\x02" + NDARRAY + b")R.",
    "a call of a class": b"\x80\x02cnumpy\nndarray\n(K\x01tR.",
    "appending to an array": b"\x80\x02" + NDARRAY + b"K\x01a.",
    "persistent id": b"\x80\x02U\x01aQ.",
    "text persistent id": b"\x80\x02Pa\n.",
    "extension": b"\x80\x02\x82\x01.",
    "instance": b"\x80\x02(ios\nsystem\n.",
    "huge integer": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "next buffer": b"\x80\x05\x97.",
    "encoding other than latin1": b"\x80\x02c_codecs\nencode\n(U\x01aU\x05rot13tR.",
    "array of objects": b"\x80\x02cnumpy\ndtype\n(U\x02O8tR.",
    "array of text": b"\x80\x02cnumpy\ndtype\n(U\x03U99tR.",
    "array of records": b"\x80\x02cnumpy\ndtype\n(U\x02f4tR(K\x03U\x01<NU\x01xNJ\xff\xff\xff\xfftb.",
    "array before its numbers": b"\x80\x02" + NDARRAY.replace(b"K\x00", b"J\xff\xff\xff\x7f") + b".",
    "type made without its checks": b"\x80\x02cnumpy\ndtype\nU\x02O8\x85\x81.",
    "type with flags": b"\x80\x02cnumpy\ndtype\n(U\x02f4tR(K\x03U\x01<NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x01tb.",
    "place in a list of gigabytes": b"\x80\x02Nr\xff\xff\xff\x7f.",
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_instructions_beyond_plain_data_are_refused(content):
    with pytest.raises(DAMAGE):
        load(content)


@pytest.mark.parametrize(
    "key", [b")" + b"\x85" * 300_000, b"(" * 200_000 + b"t" * 200_000, b")" + b"K\x01\x86" * 90_000]
)
def test_a_deep_tuple_as_key_does_not_overflow_the_stack(key):
    with pytest.raises(Refused, match="deeper"):
        load(b"\x80\x02}" + key + b"K\x01s.")


def test_long_containers_are_not_deep():
    items = b"".join(python2((str(index), index))[1:-1] + b"s" for index in range(3000))  # an instruction an item
    assert len(load(b"\x80\x02}" + items + b".")) == 3000


def test_instructions_are_limited_and_copies_count():
    with pytest.raises(Refused, match="instructions"):
        load(b"\x80\x02" + b"}" * (MAX_INSTRUCTIONS + 1) + b".")
    pairs = b"](" + b"".join(python2((f"{index:07}", None)) for index in range(20_000)) + b"e\x85q\x00"
    copies = b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00R" * 100
    with pytest.raises(Refused, match="copies"):
        load(b"\x80\x02" + pairs + copies + b".")


@pytest.mark.parametrize(
    "prefix", [b"X\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"B\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("wide", [b"", b"\x8d", b"\x8e", b"\x96"])
def test_claimed_lengths_beyond_the_end(prefix, wide):
    with pytest.raises(DAMAGE):
        load(b"\x80\x05" + (wide + b"\xff" * 7 + b"\x7f" if wide else prefix) + b"abc.")


def array_of(shape: tuple, dtype: str, data: bytes, order: bool = False) -> Array:
    state = python2((1, shape, np.dtype(dtype), order, data))
    return load(b"\x80\x02" + NDARRAY + state + b"b.")


@pytest.mark.parametrize(
    "shape", [(3,), (10**13,), (1,), (2**62, 4), (2**63, 2), (-1, -2), (1,) * 33 + (2,), (2.0,), 1]
)
def test_arrays_whose_shape_is_not_their_bytes(shape):
    assert array_of((2,), "<f4", b"\0" * 8).view().tolist() == [0, 0]
    with pytest.raises(DAMAGE):
        array_of(shape, "<f4", b"\0" * 8).view()


def test_arrays_without_type_or_numbers():
    for content in (NDARRAY, b"cnumpy.core.multiarray\nscalar\n(NU\x01atR"):
        with pytest.raises(Refused, match="lacks"):
            load(b"\x80\x02" + content + b".").view()


@given(st.binary(max_size=60))
def test_noise_raises_only_what_is_announced(noise):
    base = pickle.dumps({"model": {"a": np.ones(2, np.float32)}}, protocol=2)
    for content in (b"\x80\x02" + noise + b".", base[:-1] + noise + b".", base[: len(noise)] + noise):
        try:
            load(content)
        except DAMAGE:
            pass


def _assert_same(loaded: Array, array: np.ndarray) -> None:
    assert loaded.nbytes == array.nbytes
    tensor = tensor_of(loaded.view())
    assert tensor.is_contiguous()
    assert tensor.numpy().dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(tensor.numpy(), array)
