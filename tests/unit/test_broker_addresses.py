"""Which addresses a sandbox may be connected to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.broker.addresses import public, within


@pytest.mark.parametrize("address", ["8.8.8.8", "151.101.0.223", "2a04:4e42::223", "2606:4700::6810:85e5"])
def test_public_addresses_are_public(address: str) -> None:
    assert public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1",
        "198.18.0.1", "198.51.100.1", "203.0.113.80", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "2001:db8::1",
        "3fff::1", "fec0::1",
        "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1",  # mapped
        "::127.0.0.1", "::8.8.8.8",  # compatible
        "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe",  # NAT64
        "64:ff9b:1::8.8.8.8",  # NAT64 of one's own network
        "2002:0a00:0001::1", "2002:0808:0808::1",  # 6to4
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
        "2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:192.168.0.1",  # ISATAP
    ],
)  # fmt: skip
def test_private_and_special_addresses_are_not(address: str) -> None:
    assert not public(ip_address(address))


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_in_ipv6_is_judged_as_itself(number: int) -> None:
    plain = IPv4Address(number)
    for carrier in ("::ffff:0:0", "64:ff9b::"):
        assert public(IPv6Address(int(IPv6Address(carrier)) | number)) is public(plain)


def test_a_network_that_is_allowed_has_mapped_addresses_too() -> None:
    networks = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
    assert within(ip_address("10.1.1.1"), networks)
    assert within(ip_address("::ffff:10.1.1.1"), networks)
    assert within(ip_address("fd00::1"), networks)
    assert not within(ip_address("11.1.1.1"), networks)
    assert not within(ip_address("::ffff:11.1.1.1"), networks)
