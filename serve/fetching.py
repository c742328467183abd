"""An allowed URI -> its bytes, or the rejection that takes the image's place.

Over HTTP the name is resolved once, every address it has must be public, and the connection goes to that very address:
a name that points into the network of the endpoint, or changes its mind in between, leads nowhere. A rule that names an
address itself (http://10.0.0.5/) has said what it wants. Redirects are not followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time

from iqa_core.corpus.fetching import fetch
from iqa_core.corpus.storage import Storage
from iqa_core.errors import IqaError
from iqa_core.records import ImageLimits, Reason, Rejection
from serve.uris import FetchableUri, UriRule, allowed

NOT_ALLOWED = Rejection(Reason.FORBIDDEN, "this endpoint does not fetch that URI; send the image itself")
BLOCK_BYTES = 256 * 1024


class Refused(Exception):
    """The address is none that a caller may reach."""


def fetch_allowed(
    uri: str, rules: tuple[UriRule, ...], limits: ImageLimits, storage: Storage, timeout_s: float
) -> bytes | Rejection:
    """Bytes of the object; nothing is asked of the network, name servers included, unless a rule allows the URI."""
    found = allowed(uri, rules)
    if found is None:
        return NOT_ALLOWED
    try:
        if found.scheme == "s3":
            # what was allowed, not what was sent: a bucket's name may be written in capitals
            return fetch(storage, f"s3://{found.host}{found.target}", None, limits)
        return _get(found, limits.max_bytes, timeout_s)
    except Refused:
        return NOT_ALLOWED
    except (OSError, http.client.HTTPException, IqaError) as error:
        return Rejection(Reason.FETCH_FAILED, f"it cannot be fetched: {type(error).__name__}")


def _get(uri: FetchableUri, max_bytes: int, timeout_s: float) -> bytes | Rejection:
    deadline = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection(uri.host, uri.port, timeout=timeout_s)
    connection.sock = _connected(uri, timeout_s)
    try:
        connection.request("GET", uri.target, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
        answer = connection.getresponse()
        if answer.status != 200:
            return _refusal(answer.status)
        return _body(answer, max_bytes, deadline)
    finally:
        connection.close()


def _body(answer: http.client.HTTPResponse, max_bytes: int, deadline: float) -> bytes | Rejection:
    claimed = answer.length or 0
    blocks: list[bytes] = []
    size = 0
    while claimed <= max_bytes and size <= max_bytes and (block := answer.read1(BLOCK_BYTES)):
        blocks.append(block)
        size += len(block)
        if time.monotonic() > deadline:
            raise TimeoutError
    if max(claimed, size) > max_bytes:
        return Rejection(Reason.TOO_LARGE, f"it has more bytes than the limit of {max_bytes}")
    if size < claimed:
        raise http.client.IncompleteRead(b"")
    return b"".join(blocks)


def _refusal(status: int) -> Rejection:
    if status in (404, 410):
        return Rejection(Reason.MISSING, f"the server answers {status}")
    if status in (401, 403):
        return Rejection(Reason.FORBIDDEN, f"the server answers {status}")
    if 300 <= status < 400:
        return Rejection(Reason.FETCH_FAILED, f"the server answers {status}; redirects are not followed")
    return Rejection(Reason.FETCH_FAILED, f"the server answers {status}")


def _connected(uri: FetchableUri, timeout_s: float) -> socket.socket:
    address = public_address(uri.host, uri.port)
    plain = socket.create_connection((address, uri.port), timeout=timeout_s)
    if uri.scheme == "http":
        return plain
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=uri.host)
    except BaseException:
        plain.close()
        raise


def public_address(host: str, port: int) -> str:
    """The address to connect to. Raises Refused when the name has any address that is not public."""
    if _literal(host):
        return host
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not addresses or not all(is_public(address) for address in addresses):
        raise Refused(host)
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also where it is IPv4 in the clothes of IPv6."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
        if found in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)))
    return found.is_global and not found.is_multicast


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
