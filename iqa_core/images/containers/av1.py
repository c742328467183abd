"""An AV1 bitstream's headers (specification, 5.3 to 5.9) -> how large its frames are coded, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
"""Types of OBU."""
_SWITCH_FRAME = 3
_SELECT = 2
_HEADER_BYTES = 512
"""Bytes read of a header at most: the longest one, with 32 operating points, has 370."""


@dataclass(frozen=True, slots=True)
class Coded:
    """What decoding one item or sample goes over."""

    width: int
    height: int
    """Sides of the largest frame; where frames name their own, the largest that the sequence header allows."""
    num_frames: int
    sample_bytes: int
    """1 for 8 bits, else 2."""
    planes: float
    """Samples of a pixel: 1 for grey, 1.5 to 3 for colours."""

    @property
    def num_pixels(self) -> int:
        """Pixels of that frame."""
        return self.width * self.height


class _Bits:
    """A reader of bits, from the first on; past the last it gives zeros."""

    def __init__(self, data: memoryview) -> None:
        self._value = int.from_bytes(data[:_HEADER_BYTES], "big") << 8 * _HEADER_BYTES
        self._left = 8 * (min(len(data), _HEADER_BYTES) + _HEADER_BYTES)

    def __call__(self, count: int) -> int:
        self._left = max(0, self._left - count)
        return self._value >> self._left & (1 << count) - 1

    def skip_uvlc(self) -> None:
        zeros = 0
        while zeros < 32 and not self(1):
            zeros += 1
        self(zeros)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The fields of a sequence header that tell a frame's size and memory."""

    is_reduced: bool
    width: int
    height: int
    largest_width: int
    largest_height: int
    """The largest sides that a frame's own header could name."""
    time_bits: int
    """Bits of the time at which a frame is shown; 0 where it has none."""
    screen_content: int
    """0 or 1 for all frames, 2 where each frame says it. `integer_motion` has the same values."""
    integer_motion: int
    id_bits: int
    sample_bytes: int
    planes: float


def coded(data: memoryview) -> Coded | None:
    """Size and number of the frames; None where no sequence header stands before one, so that none can be decoded."""
    sequence, frames, width, height = None, 0, 0, 0
    for kind, body in _units(data):
        if kind == _SEQUENCE_HEADER:
            sequence = _sequence(_Bits(body))
        elif sequence and kind in (_FRAME_HEADER, _FRAME):
            frames += 1
            any_size = _has_its_own_size(_Bits(body), sequence)
            width = max(width, sequence.largest_width if any_size else sequence.width)
            height = max(height, sequence.largest_height if any_size else sequence.height)
    if sequence is None or not frames:
        return None
    return Coded(width, height, frames, sequence.sample_bytes, sequence.planes)


def _units(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and body of each OBU; ends where one is cut."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1
        end = len(data)
        if head & 2:
            size, at = _leb128(data, at)
            end = at + size
        if end > len(data):
            return
        yield head >> 3 & 15, data[at:end]
        at = end


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + 8]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    return len(data), at


def _sequence(bits: _Bits) -> _Sequence:
    profile, _, is_reduced = bits(3), bits(1), bits(1)
    time_bits = 0
    if is_reduced:
        bits(5)
    else:
        time_bits = _skip_timing_and_points(bits)
    width_bits, height_bits = bits(4) + 1, bits(4) + 1
    width, height = bits(width_bits) + 1, bits(height_bits) + 1
    id_bits = 0
    if not is_reduced and bits(1):
        id_bits = bits(4) + 2  # delta_frame_id_length
        id_bits += bits(3) + 1
    bits(3)
    screen_content, integer_motion = (_SELECT, _SELECT) if is_reduced else _tools(bits)
    bits(3)
    high = bits(1)
    twelve = bits(1) if profile == 2 and high else 0
    is_grey = profile != 1 and bits(1)
    planes = 1.0 if is_grey else 3.0 if profile == 1 or twelve else 2.0 if profile == 2 else 1.5
    largest = (1 << width_bits, 1 << height_bits)
    return _Sequence(
        bool(is_reduced), width, height, *largest, time_bits, screen_content, integer_motion, id_bits, 1 + high, planes
    )


def _skip_timing_and_points(bits: _Bits) -> int:
    """Skips both; returns how many bits hold the time at which a frame is shown."""
    delay_bits = time_bits = 0
    has_model = has_equal_intervals = 0
    if bits(1):
        bits(64)
        if has_equal_intervals := bits(1):
            bits.skip_uvlc()
        if has_model := bits(1):
            delay_bits = bits(5) + 1
            bits(37)
            time_bits = bits(5) + 1
    has_delay = bits(1)
    for _ in range(bits(5) + 1):
        bits(12)
        if bits(5) > 7:
            bits(1)
        if has_model and bits(1):
            bits(2 * delay_bits + 1)
        if has_delay and bits(1):
            bits(4)
    return 0 if has_equal_intervals else time_bits


def _tools(bits: _Bits) -> tuple[int, int]:
    """Whether frames use tools for screen content, and motion by whole pixels."""
    bits(4)
    has_order = bits(1)
    if has_order:
        bits(2)
    screen_content = _SELECT if bits(1) else bits(1)
    integer_motion = _SELECT
    if screen_content:
        integer_motion = _SELECT if bits(1) else bits(1)
    if has_order:
        bits(3)
    return screen_content, integer_motion


def _has_its_own_size(bits: _Bits, sequence: _Sequence) -> bool:
    """Whether the frame is not of the sequence's size. One that only shows an earlier frame is not."""
    if sequence.is_reduced or bits(1):
        return False
    kind, is_shown = bits(2), bits(1)
    if is_shown:
        bits(sequence.time_bits)
    else:
        bits(1)
    if not (kind == _SWITCH_FRAME or (kind == 0 and is_shown)):
        bits(1)
    bits(1)
    screen_content = bits(1) if sequence.screen_content == _SELECT else sequence.screen_content
    if screen_content and sequence.integer_motion == _SELECT:
        bits(1)
    bits(sequence.id_bits)
    return kind == _SWITCH_FRAME or bool(bits(1))
