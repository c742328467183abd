"""A URI and the addresses of its host -> the body of the answer, block by block as it arrives.

HTTP/1.1 is read by h11, which comes with uvicorn and refuses what is no strict HTTP. All that a server sends beside the
body is bounded here; time is the caller's to bound, by cancelling.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import h11

from serve.uri_rules import PORTS, FetchableUri

BLOCK_BYTES = 64 * 1024
MAX_HEAD_BYTES = 16 * 1024
"""Bytes of a head, a chunk's header or a trailer that h11 may hold before it has ended, beside one block."""
MAX_HEADERS = 100
MAX_HEADS = 8
"""Heads before the last: `103 Early Hints` and the like."""
FREE_CHUNKS = 1024
MIN_CHUNK_BYTES = 256
"""Mean size of the chunks beyond FREE_CHUNKS: a chunk takes 15 µs of the event loop, be it of one byte."""
MAX_ADDRESSES = 4
"""Addresses of a host that are tried. Each has its part of CONNECT_S, but the last has what is left of the fetch."""
CONNECT_S = 4.0


class BadAnswer(Exception):
    """A server sends no HTTP, or more around the image than is allowed."""


class Download:
    """What a server says to one request."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.status = 0
        self.length: int | None = None
        """Bytes of the body, where the head says so."""

    async def begin(self, writer: asyncio.StreamWriter, uri: FetchableUri) -> None:
        """Ask, and read the head. Raises BadAnswer, OSError."""
        headers = [("Host", host_header(uri)), ("Accept", "image/*"), ("Accept-Encoding", "identity")]
        asked = h11.Request(method="GET", target=uri.target, headers=[*headers, ("Connection", "close")])
        for event in (asked, h11.EndOfMessage()):
            writer.write(self._parser.send(event) or b"")
        head = await self._event()
        for _ in range(MAX_HEADS):
            if not isinstance(head, h11.InformationalResponse):
                break
            head = await self._event()
        if not isinstance(head, h11.Response) or len(head.headers) > MAX_HEADERS:
            raise BadAnswer(f"no head of at most {MAX_HEADERS} lines")
        self.status = head.status_code
        lengths = [int(value) for name, value in head.headers if name == b"content-length"]
        self.length = lengths[0] if lengths else None

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body. Raises BadAnswer, OSError, also where it ends early."""
        size = chunks = 0
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise BadAnswer("the body is cut")
            size += len(event.data)
            chunks += event.chunk_start
            if chunks > FREE_CHUNKS + size // MIN_CHUNK_BYTES:
                raise BadAnswer(f"chunks of less than {MIN_CHUNK_BYTES} bytes")
            yield bytes(event.data)

    async def _event(self) -> Any:
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                self._parser.receive_data(await self._reader.read(BLOCK_BYTES))
        except h11.RemoteProtocolError as error:
            raise BadAnswer(str(error)) from None
        return event


@asynccontextmanager
async def download(uri: FetchableUri, addresses: Sequence[str], tls: ssl.SSLContext | None) -> AsyncIterator[Download]:
    """The answer to a GET of the URI at one of these addresses, its head read; the connection ends with the block.

    tls: for https. Raises BadAnswer, OSError.
    """
    reader, writer = await _connected(uri, addresses, tls if uri.scheme == "https" else None)
    try:
        answer = Download(reader)
        await answer.begin(writer, uri)
        yield answer
    finally:
        writer.transport.abort()  # closing would wait 30 s for a server that does not say good-bye


def host_header(uri: FetchableUri) -> str:
    """The Host of a request: with the port where it is not the scheme's own."""
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    return host if uri.port == PORTS[uri.scheme] else f"{host}:{uri.port}"


async def _connected(
    uri: FetchableUri, addresses: Sequence[str], tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that answers; TLS is spoken with the name, not the address."""
    tried = addresses[:MAX_ADDRESSES]
    secured: dict[str, Any] = {"ssl": tls, "server_hostname": uri.host} if tls else {}
    for address in tried[:-1]:
        try:
            async with asyncio.timeout(CONNECT_S / len(tried)):
                return await asyncio.open_connection(address, uri.port, flags=socket.AI_NUMERICHOST, **secured)
        except ssl.SSLCertVerificationError:
            raise
        except OSError:
            continue
    return await asyncio.open_connection(tried[-1], uri.port, flags=socket.AI_NUMERICHOST, **secured)
