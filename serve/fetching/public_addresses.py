"""The name of a host -> its addresses, if all of them are of the open internet.

Which addresses those are is written out here: Python's `is_global` takes addresses of other networks for global, and
others so from one version to the next.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that IANA has assigned. So what translates or carries IPv4 is outside: mapped and compatible addresses,
NAT64, SIIT; and so are unique local, site-local and link-local ones, multicast, and all blocks of the future."""

NOT_PUBLIC_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, AMT, AS112, ORCHID, drones
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: any IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # 6bone, given back
            "3fff::/20",  # documentation
        ),
    )
)
NOT_PUBLIC_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers; metadata of Alibaba
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # each machine's own host on Azure
            "169.254.0.0/16",  # link-local; metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; metadata of Oracle
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved; broadcast
        ),
    )
)
"""IANA's registries of special-purpose addresses, in the state of 2025, and one of a cloud's."""

ISATAP = 0x5EFE
"""What stands before the IPv4 address in the lower half of an ISATAP address, behind 0 or 0x0200."""


class NotPublic(Exception):
    """The name leads to an address that a caller may not reach."""


class Names:
    """Looks names up, each in a thread of its own that it shares with whoever asks for the same name meanwhile.

    So a name server that hangs (30 s and more, and no clock ends it) keeps nobody waiting but those who want its names,
    and there are never more threads than hosts that rules name. Lives in one event loop.
    """

    def __init__(self, look_up: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._asked: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a name; an address stands for itself.

        Raises NotPublic where one of a name's addresses is not public, OSError where the name is not known.
        """
        if _is_address(host):
            return [host]
        if (host, port) not in self._asked:
            self._ask(host, port)
        found = await asyncio.shield(self._asked[host, port])
        if not found or not all(map(is_public, found)):
            raise NotPublic(host)
        return found

    def _ask(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        answer.add_done_callback(lambda done: done.exception())  # nobody may be waiting any more

        def settle(found: list[str], error: Exception | None) -> None:
            del self._asked[host, port]
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def ask() -> None:
            found: list[str] = []
            fault: Exception | None = None
            try:
                found = [str(entry[4][0]) for entry in self._look_up(host, port, type=socket.SOCK_STREAM)]
            except (OSError, ValueError) as error:
                fault = error
            with suppress(RuntimeError):  # the loop is closed: nobody wants to know
                loop.call_soon_threadsafe(settle, found, fault)

        threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
        self._asked[host, port] = answer


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, and leads there without being translated into another."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in block for block in NOT_PUBLIC_V4)
    is_isatap = (int(found) >> 32) & 0xFDFF_FFFF == ISATAP
    return found in GLOBAL_UNICAST and not is_isatap and not any(found in block for block in NOT_PUBLIC_V6)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
