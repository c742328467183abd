"""A pickled body -> its plain values: texts, bytes, numbers, lists, tuples and dicts. Nothing in it is ever called.

Read by an own reader of the opcodes that such values are written with, and no others. `pickle.Unpickler` can be kept
from looking names up, but not from the rest: one opcode of five bytes makes it ask for 64 GiB, and it holds the
interpreter until the last byte. Here no opcode names, imports, builds or sets anything. Each takes a bounded time,
beside that of copying the bytes it announces, and a body has room for so many.

Values form a tree: a list, tuple or dict that stands in two places is refused. So nothing contains itself, and nothing
grows when it is walked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from serve.errors import Refusal
from serve.protocol.json_values import Room

PROTOCOLS = range(3, 6)
"""Older ones write bytes as the call of a function; 4 and 5 are what Python writes by itself."""
MAX_DEPTH = 32
"""Lists, tuples and dicts inside of one another."""
STEPS_BESIDE_IMAGES, STEPS_PER_IMAGE = 2**10, 2**5
"""Opcodes of a body: 2 to 9 ms of the interpreter at 64 images. An image takes three and its prompt two."""
REPEATED_BYTES = 2**24
"""Bytes that a body may say again by a reference, such as one image in several places."""

PROTO, STOP = 0x80, ord(".")

REFUSED = {
    **dict.fromkeys((ord("c"), 0x93), "a name of something to import"),
    **dict.fromkeys((ord("i"), ord("o"), 0x81, 0x92), "an object to build"),
    **dict.fromkeys((0x82, 0x83, 0x84), "a registered name to import"),
    **dict.fromkeys((ord("P"), ord("Q"), 0x97, 0x98), "a reference to what is not in the pickle"),
    ord("R"): "a function to call",
    ord("b"): "a state to set",
}
"""What would run, import or build something, in words; every other opcode that is not in STEPS is merely unknown."""
INSTEAD = "send only texts, bytes, numbers, lists, tuples and dicts (of a numpy array, its .tolist())"

CONTAINERS = (list, tuple, dict)


def values_of_pickle(body: bytes, max_images: int) -> Any:
    """The value in a pickle of protocol 3 to 5. Raises Refusal (422) on any other, and on more than has room."""
    return PickleReader(body, max_images).value()


class PickleReader:
    """One pass over a pickle. What it builds is on a stack; the depth of each value is beside it."""

    def __init__(self, body: bytes, max_images: int) -> None:
        self.num_steps = 0
        """Opcodes that were read."""
        self._body = body
        self._at = 0
        self._max_steps = STEPS_BESIDE_IMAGES + STEPS_PER_IMAGE * max_images
        self._text_bytes = self._max_text_bytes = Room.of(max_images).num_bytes
        self._repeated_bytes = REPEATED_BYTES
        self._stack: list[Any] = []
        self._depths: list[int] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def value(self) -> Any:
        """All that the pickle holds. Raises Refusal (422)."""
        if len(self._body) < 2 or self._body[0] != PROTO or self._body[1] not in PROTOCOLS:
            raise Refusal(422, f"body: no pickle of protocol {PROTOCOLS[0]} to {PROTOCOLS[-1]}")
        self._at = 2
        while (code := self._code()) != STOP:
            step = STEPS.get(code)
            if step is None:
                raise self._fault(
                    f"{REFUSED[code]}; {INSTEAD}" if code in REFUSED else f"opcode {code:#04x}; {INSTEAD}"
                )
            step(self)
        if len(self._stack) != 1 or self._marks or self._at != len(self._body):
            raise self._fault("an end where something is left")
        return self._stack[0]

    def push(self, value: Any, depth: int = 0) -> None:
        """A value. depth: of the deepest inside of it."""
        if depth > MAX_DEPTH:
            raise self._fault(f"more than {MAX_DEPTH} lists, tuples or dicts inside of one another")
        self._stack.append(value)
        self._depths.append(depth)

    def integer(self, width: int, *, signed: bool = False) -> int:
        """A whole number of so many bytes."""
        return int.from_bytes(self.bytes_(width), "little", signed=signed)

    def bytes_(self, num_bytes: int) -> bytes:
        """The bytes that follow; no more are set aside than there are."""
        self._check_announced(num_bytes)
        self._at += num_bytes
        return self._body[self._at - num_bytes : self._at]

    def text(self, num_bytes: int) -> str:
        """A text in UTF-8 of so many bytes."""
        self._text_bytes -= num_bytes
        if self._text_bytes < 0:
            raise self._no_room()
        try:
            return self.bytes_(num_bytes).decode()
        except UnicodeDecodeError:
            raise self._fault("a text that is not UTF-8") from None

    def frame(self) -> None:
        """A frame: it says how much follows, for readers of files."""
        self._check_announced(self.integer(8))

    def mark(self) -> None:
        """The place from which the next list, tuple or dict takes its items."""
        self._marks.append(len(self._stack))

    def tuple_(self, num_items: int | None) -> None:
        """A tuple of the last items; None: of those since the mark."""
        items, depth = self._taken(num_items)
        self.push(tuple(items), depth + 1 if items else 0)

    def extend(self, num_items: int | None) -> None:
        """Items of the list below them."""
        items, depth = self._taken(num_items)
        found = self._top()
        if type(found) is not list:
            raise self._fault("items of a list where there is none")
        found.extend(items)
        self._deepen(depth)

    def update(self, num_items: int | None) -> None:
        """Keys and values, in turn, of the dict below them. Only texts are keys: their hashes are not the sender's."""
        items, depth = self._taken(num_items)
        found = self._top()
        keys = items[::2]
        if type(found) is not dict or len(items) % 2 or not all(type(key) is str for key in keys):
            raise self._fault("entries of a dict where there is none, or with keys that are no texts")
        found.update(zip(keys, items[1::2], strict=True))
        self._deepen(depth)

    def remember(self, place: int | None) -> None:
        """Keep the last value for references to it; None: in the next place."""
        self._memo[len(self._memo) if place is None else place] = self._top()

    def recall(self, place: int) -> None:
        """A reference to a value that was kept."""
        if place not in self._memo:
            raise self._fault("a reference to nothing")
        value = self._memo[place]
        if isinstance(value, CONTAINERS):
            raise self._fault("a list, tuple or dict that stands in two places; send a copy in each")
        self._repeated_bytes -= len(value) if isinstance(value, bytes) else 0
        if self._repeated_bytes < 0:
            raise self._fault(f"more than {REPEATED_BYTES} bytes that stand in two places; send fewer images at once")
        self.push(value)

    def _check_announced(self, num_bytes: int) -> None:
        if num_bytes > len(self._body) - self._at:
            raise self._fault(f"{num_bytes} bytes announced, where {len(self._body) - self._at} follow")

    def _code(self) -> int:
        self.num_steps += 1
        if self.num_steps > self._max_steps:
            raise self._no_room()
        return self.bytes_(1)[0]

    def _top(self) -> Any:
        """The last value, which must not be from before the last mark."""
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self._fault("a value missing")
        return self._stack[-1]

    def _taken(self, num_items: int | None) -> tuple[list[Any], int]:
        """The last items, taken off the stack, and the depth of the deepest."""
        floor = self._marks[-1] if self._marks else 0
        if num_items is None:
            if not self._marks:
                raise self._fault("a mark missing")
            begin = self._marks.pop()
        else:
            begin = len(self._stack) - num_items
        if begin < floor:
            raise self._fault("a value missing")
        items, depth = self._stack[begin:], max(self._depths[begin:], default=0)
        del self._stack[begin:], self._depths[begin:]
        return items, depth

    def _deepen(self, depth_inside: int) -> None:
        """What the last value now holds is so deep."""
        value, depth = self._stack.pop(), self._depths.pop()
        self.push(value, max(depth, depth_inside + 1))

    def _fault(self, what: str) -> Refusal:
        return Refusal(422, f"body: not a pickle of plain values: before byte {self._at}: {what}")

    def _no_room(self) -> Refusal:
        return Refusal(
            422,
            f"body: there is room for {self._max_steps} opcodes and {self._max_text_bytes} bytes of texts; leave out "
            "what is not asked for, or send fewer images at once",
        )


STEPS: Mapping[int, Callable[[PickleReader], None]] = {
    0x95: PickleReader.frame,
    ord("N"): lambda reader: reader.push(None),
    0x88: lambda reader: reader.push(True),
    0x89: lambda reader: reader.push(False),
    ord("K"): lambda reader: reader.push(reader.integer(1)),
    ord("M"): lambda reader: reader.push(reader.integer(2)),
    ord("J"): lambda reader: reader.push(reader.integer(4, signed=True)),
    0x8A: lambda reader: reader.push(reader.integer(reader.integer(1), signed=True)),  # 255 bytes at most
    ord("G"): lambda reader: reader.push(struct.unpack(">d", reader.bytes_(8))[0]),
    0x8C: lambda reader: reader.push(reader.text(reader.integer(1))),
    ord("X"): lambda reader: reader.push(reader.text(reader.integer(4))),
    0x8D: lambda reader: reader.push(reader.text(reader.integer(8))),
    ord("C"): lambda reader: reader.push(reader.bytes_(reader.integer(1))),
    ord("B"): lambda reader: reader.push(reader.bytes_(reader.integer(4))),
    0x8E: lambda reader: reader.push(reader.bytes_(reader.integer(8))),
    0x96: lambda reader: reader.push(reader.bytes_(reader.integer(8))),  # a bytearray
    ord("]"): lambda reader: reader.push([]),
    ord("a"): lambda reader: reader.extend(1),
    ord("e"): lambda reader: reader.extend(None),
    ord("}"): lambda reader: reader.push({}),
    ord("s"): lambda reader: reader.update(2),
    ord("u"): lambda reader: reader.update(None),
    ord(")"): lambda reader: reader.tuple_(0),
    0x85: lambda reader: reader.tuple_(1),
    0x86: lambda reader: reader.tuple_(2),
    0x87: lambda reader: reader.tuple_(3),
    ord("t"): lambda reader: reader.tuple_(None),
    ord("("): PickleReader.mark,
    0x94: lambda reader: reader.remember(None),
    ord("q"): lambda reader: reader.remember(reader.integer(1)),
    ord("r"): lambda reader: reader.remember(reader.integer(4)),
    ord("h"): lambda reader: reader.recall(reader.integer(1)),
    ord("j"): lambda reader: reader.recall(reader.integer(4)),
}
"""Opcode -> what it does. Those that plain values are written with, and no others."""
