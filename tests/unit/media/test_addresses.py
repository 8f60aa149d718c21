"""Which addresses a worker may fetch from."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipemill_worker.media.addresses import is_public

PUBLIC_4 = ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "168.63.129.15"]
PUBLIC_4 += [
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "193.0.0.1",
    "198.17.255.255",
    "223.255.255.255",
]

PRIVATE_4 = [
    "0.0.0.0",  # noqa: S104  # every interface of this machine
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
]

PUBLIC_6 = ["2606:4700:4700::1111", "2001:4860:4860::8888", "2a00::1", "2400:cb00::1"]

PRIVATE_6 = [
    "::",
    "::1",
    "::2",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b:1::1",
    "100::1",
    "1000::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", PUBLIC_4 + PUBLIC_6)
def test_the_public_internet_is_public(address: str) -> None:
    """Addresses of the public internet pass, next door to others too."""
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE_4 + PRIVATE_6)
def test_everything_else_is_not(address: str) -> None:
    """Loopback, private, shared, reserved, documentation, multicast, and clouds' own addresses don't pass."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["", "localhost", "example.org", "1.2.3", "1.2.3.4.5", "0x7f000001", "2130706433", "01.1.1.1", "1.1.1.1\n"],
)
def test_what_is_no_address_is_not_public(address: str) -> None:
    """Only addresses in their usual form are any."""
    assert not is_public(address)


@given(inner=st.ip_addresses(v=4))
def test_an_address_in_a_wrapping_is_what_it_wraps(inner: IPv4Address) -> None:
    """IPv4 behind IPv6's mapped, 6to4 and NAT64 forms passes when it would pass by itself."""
    number = int(inner)
    for wrapped in (0xFFFF << 32 | number, 0x2002 << 112 | number << 80, 0x64_FF9B << 96 | number):
        assert is_public(str(IPv6Address(wrapped))) == is_public(str(inner))


@given(address=st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: IPv4Address | IPv6Address) -> None:
    """No address passes that the standard library knows to be private, loopback, link-local, multicast or reserved."""
    inner = (address.ipv4_mapped or address.sixtofour) if isinstance(address, IPv6Address) else None
    known = inner or address
    if known.is_private or known.is_loopback or known.is_link_local or known.is_multicast or known.is_unspecified:
        assert not is_public(str(address))
