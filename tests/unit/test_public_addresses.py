"""Which addresses are public, and which URLs may name them: a corpus of forms, the same on every Python."""

import ipaddress
import random

import pytest
from tests.address_corpus import NO_ADDRESS, NOT_PUBLIC, PUBLIC, REFUSED_URLS, TAKEN

from gen_worker.net.public_addresses import NOT_PUBLIC_IPV4, NOT_PUBLIC_IPV6, is_public, why_not_public
from gen_worker.net.public_urls import BlockedURLError, read_host, read_url


def test_the_corpus_is_large() -> None:
    assert len(set(NOT_PUBLIC)) + len(set(PUBLIC)) + len(set(NO_ADDRESS)) > 150
    assert len(set(REFUSED_URLS)) > 200


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
    assert why_not_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address), why_not_public(address)


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(BlockedURLError, match="input url blocked: ") as raised:
        read_url(url)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(("url", "read"), TAKEN.items())
def test_urls_that_are_taken(url: str, read: str) -> None:
    assert str(read_url(url)) == read
    assert str(read_url(read)) == read


@pytest.mark.parametrize("net", [*NOT_PUBLIC_IPV4, *NOT_PUBLIC_IPV6])
def test_every_entry_is_refused_from_its_first_to_its_last_address(net: str) -> None:
    network = ipaddress.ip_network(net)
    for number in (0, network.num_addresses - 1, network.num_addresses // 2):
        assert not is_public(str(network[number]))


def test_every_wrapping_of_an_address_that_is_not_public_is_refused() -> None:
    """Whatever Python's own opinion: every form that carries such an IPv4 address."""
    chance = random.Random(5)
    for net in NOT_PUBLIC_IPV4:
        network = ipaddress.IPv4Network(net)
        inner = network[chance.randrange(network.num_addresses)]
        high, low = int(inner) >> 16, int(inner) & 0xFFFF
        for form in ("::{v4}", "::ffff:{v4}", "::ffff:0:{v4}", "64:ff9b::{v4}", "64:ff9b:1::{v4}", "2002:{high:x}:{low:x}::1", "2001:0:{high:x}:{low:x}::",
                     "2606:4700::5efe:{v4}", "2606:4700::200:5efe:{v4}", "fe80::5efe:{v4}"):  # fmt: skip
            assert not is_public(form.format(v4=inner, high=high, low=low)), form
        assert read_host(str(inner)) == str(inner)


def test_what_python_calls_private_is_never_public() -> None:
    chance = random.Random(6)
    for _ in range(20_000):
        six = ipaddress.IPv6Address(chance.getrandbits(128) >> chance.choice([0, 0, 32, 64, 80, 96]))
        four = ipaddress.IPv4Address(chance.getrandbits(32))
        for address in (six, four, ipaddress.IPv6Address((0x2000 << 112) | chance.getrandbits(125))):
            if is_public(str(address)):
                assert not address.is_multicast
                assert not address.is_loopback
                assert not address.is_link_local
                assert address.is_global or getattr(address, "ipv4_mapped", None) is not None
