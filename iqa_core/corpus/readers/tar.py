"""A tar -> its members and the offsets of their bytes; damage costs only the members that it hits.

`tarfile` is not used for this: it stops without an error at a header that it cannot read. Here the next whole header is
searched for behind damage, block by block.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE

MAX_EXTENSION_BYTES = 2**20
"""Largest extended header of a member (GNU long name, pax records): names have 4096 bytes, attributes 64 KiB."""
MAX_DIGITS = 20
"""Digits of the length of a pax record."""

LINKS_FOLLOWED = 8
"""Links from link to link that are followed before a circle is assumed."""

_WITH_DATA = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_WITHOUT_DATA = (*_LINKS, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar, or a link to one; offsets count from the first byte that was scanned."""

    name: str
    header: int
    """Offset of its first header, which may hold a long name."""
    offset: int
    size: int
    link: str | None = None
    """Name of the member that it points to."""
    is_sparse: bool = False
    """Its bytes are not stored in one piece."""

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Damage:
    """A place in a tar that cannot be read, and what is wrong there."""

    offset: int
    what: str


def scan(file: BinaryIO, size: int, has_end: bool = True) -> tuple[list[Member], list[Damage]]:
    """The members and the damage that `walk` finds."""
    found = list(walk(file, size, has_end))
    return [item for item in found if isinstance(item, Member)], [item for item in found if isinstance(item, Damage)]


def walk(file: BinaryIO, size: int, has_end: bool = True) -> Iterator[Member | Damage]:
    """Files and links of a tar in order, and damage among them; archives that were concatenated count as one.

    Where a member's bytes are cut off it is the last, and its `end` lies beyond `size`.
    has_end: the bytes reach to the tar's end, so an absent end-of-archive mark is damage. Nothing is raised: damage is
    yielded.
    """
    is_damaged = size == 0 and has_end
    if is_damaged:
        yield Damage(0, "a tar of 0 bytes")
    extended: dict[str, bytes] = {}
    position = begin = 0
    is_lost = has_mark = False
    while position < size:
        block = _read(file, position, min(position + BLOCK, size))
        if not block.strip(b"\0"):
            position = begin = _next_content(file, position, size)
            has_mark = True
            continue
        header = _header(block, is_lost)
        if header is None:
            if not is_lost:
                what = "a header is cut" if len(block) < BLOCK else "not a tar header"
                yield Damage(position, what)
            is_lost, is_damaged, extended = True, True, {}
            position = begin = position + BLOCK
            continue
        is_lost = False
        offset = position + BLOCK
        if header.type in _PAX or header.type in _LONG:
            end = offset + header.size
            try:
                if end > size or header.size > MAX_EXTENSION_BYTES:
                    raise ValueError(f"{header.size} bytes")
                extended |= _extension(header.type, _read(file, offset, end))
            except ValueError:
                yield Damage(position, "a header is cut" if end > size else "a header that makes no sense")
                is_lost, is_damaged, extended = True, True, {}
        else:
            offset += BLOCK * _sparse_map_blocks(file, header.type, block, offset, size)
            member = _member(header, extended, begin, offset)
            end = member.end
            if header.type in (*_WITH_DATA, *_LINKS, tarfile.GNUTYPE_SPARSE):
                yield member
            if end > size and header.type not in _WITHOUT_DATA:
                yield Damage(offset, f"member {member.name} is cut")
                return
            extended = {}
        position = -(-end // BLOCK) * BLOCK
        if not extended:
            begin = position
    if has_end and not has_mark and not is_damaged:
        yield Damage(size, "no end-of-archive mark: the tar may be cut")


def follow_links(members: Sequence[Member], among: Sequence[Member]) -> list[Member]:
    """The members, each link with the offset and size of what it points to; a link to nothing stays a link."""
    by_name = {posixpath.normpath(member.name): member for member in among}
    followed = []
    for member in members:
        target: Member | None = member
        for _ in range(LINKS_FOLLOWED):
            if target is None or target.link is None:
                break
            target = by_name.get(target.link)
        if member.link is not None and target is not None and target.link is None:
            member = replace(member, offset=target.offset, size=target.size, link=None, is_sparse=target.is_sparse)
        followed.append(member)
    return followed


def _header(block: bytes, is_lost: bool) -> tarfile.TarInfo | None:
    """The header in a block, None where it is none. is_lost: after damage only a header marked `ustar` is trusted."""
    if is_lost and block[257:262] != b"ustar":
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return header if header.size >= 0 else None


def _extension(kind: bytes, data: bytes) -> dict[str, bytes]:
    """Pax keyword -> value, from the extended header of the next member. Raises ValueError where it is malformed."""
    if kind in _LONG:
        return {_LONG[kind]: data.partition(b"\0")[0]}
    found = {}
    at, end = 0, len(data.rstrip(b"\0"))
    while at < end:
        digits, _, _ = data[at : at + MAX_DIGITS].partition(b" ")
        length = int(digits)
        if not len(digits) < length <= len(data) - at:
            raise ValueError(f"a record of {length} bytes")
        keyword, _, value = data[at + len(digits) + 1 : at + length - 1].partition(b"=")
        found[keyword.decode("utf-8", "replace")] = value
        at += length
    if "size" in found and int(found["size"]) < 0:
        raise ValueError("a negative size")
    return found


def _member(header: tarfile.TarInfo, extended: Mapping[str, bytes], begin: int, offset: int) -> Member:
    name = _text(extended.get("GNU.sparse.name", extended.get("path"))) or _text(header.name)
    is_link = header.type in _LINKS
    link = None
    if is_link:
        link = _text(extended.get("linkpath")) or _text(header.linkname)
        if header.type == tarfile.SYMTYPE:
            link = posixpath.join(posixpath.dirname(name), link)
        link = posixpath.normpath(link)
    size = 0 if header.type in _WITHOUT_DATA else int(extended.get("size", header.size))
    is_sparse = header.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse.major" in extended or "GNU.sparse.size" in extended
    return Member(name, begin, offset, size, link, is_sparse)


def _sparse_map_blocks(file: BinaryIO, kind: bytes, block: bytes, offset: int, size: int) -> int:
    """Number of blocks of the sparse map between an old GNU sparse header and its data."""
    if kind != tarfile.GNUTYPE_SPARSE or not block[482]:
        return 0
    count = 1
    while offset + BLOCK * count <= size and _read(file, offset + BLOCK * (count - 1), offset + BLOCK * count)[504]:
        count += 1
    return count


def _text(name: str | bytes | None) -> str:
    """A name with bytes that are no UTF-8 as \\xNN, since tables hold UTF-8."""
    raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name or b""
    return raw.decode("utf-8", "backslashreplace")


def _read(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def _next_content(file: BinaryIO, position: int, size: int) -> int:
    """Offset of the next block that is not all zeros, or `size`."""
    while position < size:
        block = _read(file, position, min(position + 2**16, size))
        found = re.search(rb"[^\0]", block)
        if found:
            return position + found.start() // BLOCK * BLOCK
        position += len(block)
    return size
