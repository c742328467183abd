"""Encoded bytes -> an upright RGB image, or the reason why not: see `decoding`."""

from iqa_core.images.decoding import decode, read_header

__all__ = ["decode", "read_header"]
