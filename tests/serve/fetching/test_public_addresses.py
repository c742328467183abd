"""Which addresses a name may lead to, and that a look-up holds nothing that others need."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from typing import Any

import pytest

from serve.fetching.public_addresses import Names, NotPublic, is_public
from tests.clock import eventually

PUBLIC = (
    "8.8.8.8 1.1.1.1 93.184.216.34 192.0.1.1 198.17.255.255 223.255.255.255 172.15.0.1 172.32.0.1 100.128.0.1".split()
)
PUBLIC_V6 = "2001:4860:4860::8888 2606:4700::1111 2a00:1450:4001::1 2001:200::1 2400::1 2c0f::1 3fff:1000::1".split()

SPECIAL_V4 = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29
192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/31 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24
192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32
168.63.129.16/32
""".split()
"""IANA's IPv4 registry, multicast, and Azure's own address."""

SPECIAL_V6 = """::1/128 ::/128 ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64
2001::/23 2001::/32 2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28
2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3ffe::/16 3fff::/20 5f00::/16 fc00::/7
fd00:ec2::254/128 fe80::/10 fec0::/10 ff00::/8 4000::/3 6000::/3 8000::/3 a000::/3 c000::/3 e000::/4 200::/7 400::/6
1000::/4
""".split()
"""IANA's IPv6 registry, multicast, site-local, and all that is not given away yet."""

CARRIERS = """::{} ::ffff:{} ::ffff:0:{} 64:ff9b::{} 64:ff9b:1::{} fe80::5efe:{} 2a00:1450::5efe:{}
2a00:1450::200:5efe:{}""".split()
"""Ways of writing an IPv4 address as an IPv6 one in which it stands at the end; none is what a public host has."""


@pytest.mark.parametrize("address", PUBLIC + PUBLIC_V6)
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("block", SPECIAL_V4 + SPECIAL_V6)
def test_special_blocks_are_not_from_their_first_address_to_their_last(block: str) -> None:
    found = ipaddress.ip_network(block)
    assert not is_public(str(found[0]))
    assert not is_public(str(found[-1]))
    assert not is_public(str(found[found.num_addresses // 2]))


@pytest.mark.parametrize("carrier", CARRIERS)
def test_no_ipv6_address_leads_to_an_ipv4_one(carrier: str) -> None:
    for address in ("10.1.2.3", "127.0.0.1", "169.254.169.254", "8.8.8.8"):
        assert not is_public(carrier.format(address))
        high, low = divmod(int(ipaddress.IPv4Address(address)), 2**16)
        assert not is_public(f"2002:{high:x}:{low:x}::1")
        assert not is_public(f"2001:0:{high:x}:{low:x}::1")


def test_a_scope_changes_nothing() -> None:
    assert not is_public("fe80::1%eth0")


class NameServer:
    """Says of each name what it is told; hangs where that is nothing."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names
        self.asked: list[str] = []
        self.go_on = threading.Event()

    def __call__(self, host: str, port: int, **_: object) -> list[Any]:
        self.asked.append(host)
        if host not in self.names:
            self.go_on.wait(120)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(0, 0, 0, "", (address, port)) for address in self.names[host]]


def test_each_address_of_a_name_must_be_public() -> None:
    server = NameServer(good=["8.8.8.8", "2606:4700::1"], mixed=["8.8.8.8", "10.0.0.1"], v6=["8.8.8.8", "::1"], none=[])

    async def ask() -> None:
        names = Names(server)
        assert await names.addresses("good", 443) == ["8.8.8.8", "2606:4700::1"]
        for name in ("mixed", "v6", "none"):
            with pytest.raises(NotPublic):
                await names.addresses(name, 443)
        assert await names.addresses("10.0.0.5", 80) == ["10.0.0.5"]  # a rule has said it
        assert server.asked == ["good", "mixed", "v6", "none"]

    asyncio.run(ask())


def test_a_name_server_that_hangs_keeps_nobody_but_those_who_ask_it_and_one_thread() -> None:
    server = NameServer(good=["8.8.8.8"])

    async def ask() -> None:
        names = Names(server)
        lost = [asyncio.ensure_future(names.addresses("hangs", 443)) for _ in range(100)]
        await eventually(lambda: "hangs" in server.asked)
        assert await asyncio.wait_for(names.addresses("good", 443), 60) == ["8.8.8.8"]
        lost[0].cancel()  # out of time
        assert server.asked.count("hangs") == 1
        server.go_on.set()
        answers = await asyncio.gather(*lost, return_exceptions=True)
        assert [type(answer) for answer in answers] == [asyncio.CancelledError, *[socket.gaierror] * 99]

    asyncio.run(ask())


def test_the_names_of_this_machine_are_not_public() -> None:
    with pytest.raises(NotPublic):
        asyncio.run(Names().addresses("localhost", 80))
