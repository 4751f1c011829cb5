"""Which addresses are on the public internet, in whatever form an IPv6 address carries an IPv4 one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The IANA registries of special addresses, not Python's ``is_global``, whose list differs between patch releases.
_SPECIAL = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",  # private; pods and services of most clusters
            "100.64.0.0/10",  # carriers' NAT; pods of some clusters; one cloud's metadata
            "127.0.0.0/8",
            "168.63.129.16/32",  # one cloud's metadata, at an address that looks public
            "169.254.0.0/16",  # link-local: cloud metadata
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "2001::/23",  # Teredo, ORCHID and other protocols
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# The upper half of an ISATAP interface identifier (RFC 5214), without its bit for global addresses.
_ISATAP = 0x00005EFE
_GLOBAL_BIT = 0x02000000


def public(address: Address) -> bool:
    """Whether the address is one host on the public internet.

    An address that carries an IPv4 address in a form that a network may translate is judged by that one. Forms that
    nobody needs any more (6to4, Teredo, IPv4-compatible) are not public.
    """
    if isinstance(address, IPv6Address):
        inner = carried(address)
        if inner is not None:
            return public(inner)
        if address not in _GLOBAL_UNICAST or address.scope_id is not None:
            return False
        if (int(address) >> 32) & 0xFFFFFFFF & ~_GLOBAL_BIT == _ISATAP and not public(_last(address)):
            return False
    return not within(address, _SPECIAL)


def carried(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv4-mapped or NAT64 address stands for."""
    return _last(address) if address in _NAT64 else address.ipv4_mapped


def within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of the networks has the address, or the IPv4 address that it stands for."""
    plain = (carried(address) or address) if isinstance(address, IPv6Address) else address
    return any(plain in network for network in networks if network.version == plain.version)


def _last(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)
