"""Pickles of plain values are read as Python reads them; all else is refused in words, before it costs anything."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.errors import Refusal
from serve.protocol.json_values import Room
from serve.protocol.pickles import (
    MAX_DEPTH,
    REFUSED,
    REPEATED_BYTES,
    STEPS,
    STEPS_BESIDE_IMAGES,
    STEPS_PER_IMAGE,
    PickleReader,
    values_of_pickle,
)

MAX_IMAGES = 64
MAX_STEPS = STEPS_BESIDE_IMAGES + STEPS_PER_IMAGE * MAX_IMAGES
MAX_TEXT_BYTES = Room.of(MAX_IMAGES).num_bytes
P4 = b"\x80\x04"
P5 = b"\x80\x05"
WHAT_TO_SEND = "send only texts, bytes, numbers, lists, tuples and dicts (of a numpy array, its .tolist())"

GLOBALS = {
    "a function to call": P4 + b"\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "a name in a line": b"\x80\x03cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
    "a name alone": P4 + b"cbuiltins\neval\n.",
    "a name in an image's place": P4 + b"}\x8c\x06images]cbuiltins\neval\nas.",
    "INST": P4 + b"(X\x04\x00\x00\x00trueiposix\nsystem\n.",
    "OBJ": P4 + b"(cposix\nsystem\nX\x04\x00\x00\x00trueo.",
    "OBJ of a text": P4 + b"(\x8c\x01ao.",
    "REDUCE of texts": P4 + b"\x8c\x01a)R.",
    "NEWOBJ": P4 + b"cbuiltins\ndict\n)\x81.",
    "NEWOBJ_EX": P4 + b"cbuiltins\ndict\n)}\x92.",
    "NEWOBJ of a text": P4 + b"\x8c\x01a)\x81.",
    "BUILD": P4 + b"}}\x8c\x01a\x8c\x01bsb.",
    "EXT1": P4 + b"\x82\x01.",
    "EXT2": P4 + b"\x83\x01\x00.",
    "EXT4": P4 + b"\x84\x01\x00\x00\x00.",
    "PERSID": P4 + b"Pabc\n.",
    "BINPERSID": P4 + b"\x8c\x03abcQ.",
    "a buffer from elsewhere": P5 + b"\x97.",
    "a buffer from elsewhere, to be read only": P5 + b"C\x01a\x98.",
    "old bytes, by a call": pickle.dumps(b"a", protocol=3).replace(
        b"C\x01a", b"c_codecs\nencode\n(X\x01\x00\x00\x00atR"
    ),
    "a set": pickle.dumps({1, 2}, protocol=3),
    "a set of protocol 4": pickle.dumps({1, 2}, protocol=4),
    "a complex number": pickle.dumps(1j, protocol=4),
    "a range": pickle.dumps(range(3), protocol=4),
    "a class": pickle.dumps(dict, protocol=4),
}
"""Name -> bytes that would import, call, build or look up something."""

BROKEN = {
    "nothing": b"",
    "JSON": b'{"images": []}',
    "protocol 0": pickle.dumps({"a": 1}, protocol=0),
    "protocol 2": pickle.dumps({"a": 1}, protocol=2),
    "a protocol to come": b"\x80\x06N.",
    "a protocol alone": b"\x80",
    "a protocol in the middle": P4 + P4 + b"N.",
    "no end": P4 + b"N",
    "an end of nothing": P4 + b".",
    "two values": P4 + b"NN.",
    "an open mark": P4 + b"N(.",
    "bytes after the end": P4 + b"N.N",
    "lines of protocol 0": P4 + b"I1\n.",
    "a float in a line": P4 + b"F1e999999999\n.",
    "a long number in a line": P4 + b"L" + b"9" * 5000 + b"L\n.",
    "DUP": P4 + b"]2.",
    "POP": P4 + b"N]0.",
    "POP_MARK": P4 + b"N(N1.",
    "a set's opcodes": P4 + b"\x8f.",
    "a frozen set's": P4 + b"(\x91.",
    "LONG4 that says more than there is": P4 + b"\x8b\xff\xff\xff\x7f\x01.",
    "LONG4 of less than nothing": P4 + b"\x8b\xff\xff\xff\xff.",
    "LONG1 cut off": P4 + b"\x8a\xff\x01.",
    "a float cut off": P4 + b"G\x00\x00.",
    "a frame that says more than there is": P4 + b"\x95" + b"\xff" * 8 + b"N.",
    "bytes that say more than there are": P4 + b"\x8e" + struct.pack("<Q", 2**62) + b"a.",
    "a bytearray that says more": P5 + b"\x96" + struct.pack("<Q", 2**40) + b"a.",
    "BINBYTES that says more": P4 + b"B" + struct.pack("<I", 2**32 - 1) + b"a.",
    "a text that says more": P4 + b"\x8d" + struct.pack("<Q", 2**63) + b"a.",
    "a text cut off": P4 + b"\x8c\x05ab.",
    "a text that is not UTF-8": P4 + b"\x8c\x01\xff.",
    "half a pair": P4 + b"\x8c\x03\xed\xa0\x80.",
    "a reference to nothing": P4 + b"j\xff\xff\xff\x7f.",
    "a value to keep that is not there": P4 + b"\x94N.",
    "a value to keep from before a mark": P4 + b"]N(\x94e.",
    "items without a list": P4 + b"NNa.",
    "items without a mark": P4 + b"]Ne.",
    "items of a tuple": P4 + b")(Ne.",
    "items of what is before a mark": P4 + b"](N(\x85.",
    "an item that is not there": P4 + b"]a.",
    "entries without a dict": P4 + b"]\x8c\x01aNs.",
    "half an entry": P4 + b"}(\x8c\x01au.",
    "a tuple of nothing": P4 + b"N\x86.",
    "a list as a key": P4 + b"}]Ns.",
    "a dict as a key": P4 + b"}}Ns.",
    "a number as a key": P4 + b"}K\x01Ns.",
    "bytes as a key": P4 + b"}C\x01aNs.",
    "a list in itself": P4 + b"]\x94h\x00a.",
    "a dict in itself": P4 + b"}\x94\x8c\x01ah\x00s.",
    "a tuple around itself": P4 + b"]\x94(h\x00t\x94h\x00h\x01a.",
    "a list in two places": P4 + b"](]\x94h\x00e.",
    "a list that is kept twice": P4 + b"]q\x05q\x06(h\x05h\x06e.",
}
"""Name -> bytes that are no pickle of plain values, or none at all."""


def laughs(levels: int) -> bytes:
    """Lists that each hold the one before twice: 2 to the power of levels, when walked."""
    doubled = b"".join(b"]\x94(h%ch%ce" % (place, place) for place in range(levels))
    return P4 + b"]\x94" + doubled + b"."


def doubling(levels: int) -> bytes:
    """A list that takes itself in twice, over and over."""
    return P4 + b"]\x94" + b"(h\x00h\x00e" * levels + b"."


def lists(levels: int) -> bytes:
    return P4 + b"]" * levels + b"a" * (levels - 1) + b"."


def dicts(levels: int) -> bytes:
    return P4 + b"}\x8c\x01a" * (levels - 1) + b"}" + b"s" * (levels - 1) + b"."


def tuples(levels: int) -> bytes:
    return P4 + b"N" + b"\x85" * levels + b"."


def marks(levels: int) -> bytes:
    return P4 + b"](" * levels + b"e" * levels + b"."


def read(body: bytes) -> Any:
    return values_of_pickle(body, MAX_IMAGES)


def refusal(body: bytes) -> str:
    with pytest.raises(Refusal) as found:
        read(body)
    assert found.value.status == 422
    return found.value.message


@pytest.mark.parametrize("name", GLOBALS)
def test_what_would_run_or_import_something_is_refused_with_what_to_send_instead(name: str) -> None:
    assert WHAT_TO_SEND in refusal(GLOBALS[name])


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_pickle_of_plain_values_is_refused(name: str) -> None:
    assert refusal(BROKEN[name]).startswith("body: ")


def test_no_opcode_is_both_read_and_refused_and_none_is_read_that_is_not_listed() -> None:
    assert not set(STEPS) & set(REFUSED)
    for code in set(range(256)) - set(STEPS) - {ord(".")}:
        assert WHAT_TO_SEND in refusal(P4 + b"](" + bytes([code]) + b"\x01\n\x01\n" * 4)


def test_numpy_is_refused_with_what_to_send_instead() -> None:
    import numpy as np

    for value in (np.array(["a"]), np.str_("a"), np.float64(1), np.zeros((2, 2, 3), np.uint8)):
        for protocol in (3, 4, 5):
            assert WHAT_TO_SEND in refusal(pickle.dumps({"prompts": value}, protocol=protocol))


@pytest.mark.parametrize("bomb", [laughs(20), laughs(200), doubling(1), doubling(5000)])
def test_nothing_grows_when_it_is_walked(bomb: bytes) -> None:
    assert "stands in two places" in refusal(bomb)


@pytest.mark.parametrize("nested", [lists, dicts, tuples, marks])
def test_depth_is_bounded(nested: Any) -> None:
    assert read(nested(MAX_DEPTH)) is not None
    assert f"more than {MAX_DEPTH}" in refusal(nested(MAX_DEPTH + 2))
    refusal(nested(10**6))


@pytest.mark.parametrize(
    "body",
    [
        P4 + b"Nr\xff\xff\xff\x7f.",  # pickle.loads asks for 32 GiB
        P4 + b"N" + b"".join(b"r" + struct.pack("<I", 2**31 + place) for place in range(1000)) + b".",
    ],
)
def test_a_place_to_keep_a_value_costs_the_same_whatever_its_number(body: bytes) -> None:
    tracemalloc.start()
    try:
        assert read(body) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name in BROKEN if "says more" in name or "say more" in name])
def test_what_is_only_announced_takes_no_memory(name: str) -> None:
    tracemalloc.start()
    try:
        refusal(BROKEN[name])
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


WORST = (
    b"N",
    b"]",
    b"}",
    b")",
    b"(",
    b"K\x01",
    b"\x8a\x00",
    b"\x8c\x00",
    b"C\x00",
    b"]\x94",
    b"]a",
    b"}\x8c\x00Ns",
    b"N\x85",
)


@pytest.mark.parametrize("piece", WORST)
def test_no_body_takes_more_than_its_room(piece: bytes) -> None:
    """4 MiB of the smallest opcodes: steps are counted, and so is what they leave in memory."""
    body = P4 + piece * (2**22 // len(piece))
    reader = PickleReader(body, MAX_IMAGES)
    tracemalloc.start()
    try:
        with pytest.raises(Refusal):
            reader.value()
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert reader.num_steps <= MAX_STEPS + 1


def request(num_images: int, image_bytes: int) -> bytes:
    images = [bytes([place % 256]) * image_bytes for place in range(num_images)]
    return pickle.dumps({"images": images, "prompts": [f"{place} halls" for place in range(num_images)]})


def test_twice_the_images_are_twice_the_work_and_their_size_is_none() -> None:
    def steps(num_images: int, image_bytes: int) -> int:
        reader = PickleReader(request(num_images, image_bytes), num_images)
        assert len(reader.value()["images"]) == num_images
        return reader.num_steps

    for num_images in (50, 100, 200, 400, 800):
        assert steps(2 * num_images, 10) <= 2.5 * steps(num_images, 10)
    assert steps(8, 10**6) <= steps(8, 300) + 8, "a frame more for each"


def test_twice_the_bytes_take_at_most_twice_the_memory() -> None:
    def peak(image_bytes: int) -> int:
        body = request(8, image_bytes)
        tracemalloc.start()
        try:
            read(body)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(2**20) < 8.5 * 2**20
    assert peak(2**21) <= 2.5 * peak(2**20)


def test_a_body_may_say_a_picture_again_but_not_without_end() -> None:
    picture = b"a" * 300
    assert read(pickle.dumps([picture] * 64)) == [picture] * 64
    large = b"a" * (REPEATED_BYTES // 4)
    assert len(read(pickle.dumps([large] * 5))) == 5
    assert "send fewer images at once" in refusal(pickle.dumps([large] * 6))


def test_texts_have_room_but_not_without_end() -> None:
    prompts = [f"{place}" * 4000 for place in range(10)]
    assert read(pickle.dumps(prompts)) == prompts
    assert "room for" in refusal(pickle.dumps("a" * (MAX_TEXT_BYTES + 1)))
    assert "room for" in refusal(pickle.dumps([f"{place:>9000}" for place in range(MAX_TEXT_BYTES // 8000)]))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**2000), 2**2000)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
    | st.binary(max_size=300)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text("ab", max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(value=VALUES, protocol=st.integers(3, 5))
def test_plain_values_are_read_as_python_reads_them(value: Any, protocol: int) -> None:
    found = read(pickle.dumps(copied(value), protocol=protocol))
    assert found == value
    assert repr(found) == repr(value), "types, and the sign of a zero"


def copied(value: Any) -> Any:
    """The same value, with no list, tuple or dict in two places."""
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([copied(one) for one in value])
    return value


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(value=VALUES, protocol=st.integers(3, 5), data=st.data())
def test_a_damaged_pickle_is_refused_or_read_as_python_reads_it(value: Any, protocol: int, data: st.DataObject) -> None:
    body = bytearray(pickle.dumps(value, protocol=protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check_against_python(bytes(body))


@settings(max_examples=200, deadline=None)
@given(codes=st.lists(st.sampled_from([*STEPS, *REFUSED, 0, 1, 2]), max_size=60))
def test_opcodes_in_any_order_are_refused_or_read_as_python_reads_them(codes: list[int]) -> None:
    check_against_python(P4 + bytes(codes) + b".")


def check_against_python(body: bytes) -> None:
    """What our reader takes holds no global, so that Python may read it too. Its unpickler in C would set aside
    gigabytes for a place with a large number.
    """
    try:
        found = read(body)
    except Refusal:
        return
    try:
        expected = pickle._Unpickler(BytesIO(body)).load()
    except pickle.UnpicklingError as fault:
        if "frame" in str(fault):  # one that ends in the middle of something; ours does not look at where they end
            return
        raise
    assert found == expected or repr(found) == repr(expected), "a bytearray is equal, NaN is the same"
