"""Which addresses are on the public internet. Pure."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

#: Ranges that Python of some version calls global, and that lead elsewhere.
_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(network)
    for network in (
        "100.64.0.0/10",  # carriers' own networks, and clouds' metadata within them
        "168.63.129.16/32",  # Azure's host, from within its machines
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays from IPv6, abandoned
        "198.18.0.0/15",  # benchmarks
        "240.0.0.0/4",  # reserved
    )
)
#: All that IPv6 has for the public.
_UNICAST_6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, identifiers
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
#: Addresses that stand for one of IPv4, which is their last 32 bits.
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
_LAST_32_BITS: Final = 2**32 - 1


def is_public(address: str) -> bool:
    """Whether an IP address leads to the public internet, whatever it is wrapped in; False if it is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        inner = _within(parsed)
        return _is_public_6(parsed) if inner is None else _is_public_4(inner)
    return _is_public_4(parsed)


def _within(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if address in _TRANSLATED:
        return IPv4Address(int(address) & _LAST_32_BITS)
    return address.ipv4_mapped or address.sixtofour


def _is_public_4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in net for net in _NOT_PUBLIC_4)


def _is_public_6(address: IPv6Address) -> bool:
    public = address in _UNICAST_6 and address.is_global and address.scope_id is None
    return public and not any(address in net for net in _NOT_PUBLIC_6)
