"""Addresses, subnets, MACs and ports as people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.addresses import (
    Published,
    parse_address,
    parse_destination,
    parse_interface,
    parse_mac,
    parse_ports,
    parse_published,
    parse_subnet,
)

PARSERS: tuple[Callable[[str], Any], ...] = (
    parse_address,
    parse_destination,
    parse_interface,
    parse_mac,
    parse_ports,
    parse_published,
    parse_subnet,
)


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text("0123456789abcdef.:/-[]%xé\n ", max_size=30) | st.text(max_size=30))
def test_any_text_is_taken_or_refused_in_one_line(parse: Callable[[str], Any], text: str) -> None:
    said = ""
    try:
        parse(text)
    except ValueError as error:
        said = str(error)
    assert "\n" not in said


SUBNETS = ["10.88.0.0/24", "10.0.0.0/30", "fd88::/64", "fd88:0:0:1::/64", "240.0.0.0/8", "1.0.0.0/8"]


@pytest.mark.parametrize("text", SUBNETS)
def test_a_subnet(text: str) -> None:
    assert str(parse_subnet(text)) in {text, "fd88:0:0:1::/64"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0/0", "not for hosts"),
        ("::/0", "not for hosts"),
        ("126.0.0.0/7", "not for hosts"),
        ("127.0.0.0/8", "not for hosts"),
        ("224.0.0.0/4", "not for hosts"),
        ("169.254.0.0/16", "not for hosts"),
        ("::ffff:10.0.0.0/104", "not for hosts"),
        ("fe80::/64", "not for hosts"),
        ("ff00::/8", "not for hosts"),
        ("10.0.0.1/24", "do you mean 10.0.0.0/24"),
        ("10.0.0.0/31", "too small"),
        ("fd00::/127", "too small"),
        ("10.0.0.0", "how long its prefix is"),
        ("10.0.0.0/33", "not a subnet"),
        ("10.0.0.0/24 ", "not a subnet"),
        ("", "not a subnet"),
    ],
)
def test_what_is_no_subnet_for_containers(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_subnet(text)


@pytest.mark.parametrize(
    "text", ["fd88::5%eth0", "fd88::5%0/64", "010.88.0.5", "10.88.0.5/33", "", "10.88.0"]
)
def test_what_is_no_address_of_an_interface(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        parse_interface(text)


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("default", "default"),
        ("0.0.0.0/0", "default"),
        ("::/0", "default"),
        ("10.9.0.0/16", "10.9.0.0/16"),
        ("10.9.0.1/32", "10.9.0.1/32"),
        ("fd00:0::/32", "fd00::/32"),
    ],
)
def test_where_a_route_leads(text: str, destination: str) -> None:
    assert parse_destination(text) == destination


def test_a_mac_in_any_writing() -> None:
    assert parse_mac("02-00-5E-10-00-01") == parse_mac("02:00:5e:10:00:01") == "02:00:5e:10:00:01"


@pytest.mark.parametrize(
    "text", ["01:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "2:0:0:0:0:1", ""]
)
def test_a_mac_that_no_interface_can_have(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_mac(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8080:80", Published("tcp", "", 8080, 80)),
        ("127.0.0.1:53:5353/udp", Published("udp", "127.0.0.1", 53, 5353)),
        ("[fd88::0:1]:1:65535/tcp", Published("tcp", "fd88::1", 1, 65535)),
    ],
)
def test_a_published_port(text: str, found: Published) -> None:
    assert parse_published(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("80", "not a port to publish"),
        ("0:80", "from 1 to 65535"),
        ("80:65536", "from 1 to 65535"),
        ("::1:80:80", "not a port to publish"),
        ("0.0.0.0:80:80", "leave 0.0.0.0 out"),
        ("[::]:80:80", "leave :: out"),
        ("224.0.0.1:80:80", "not an address of one host"),
        ("[ff02::1]:80:80", "not an address of one host"),
        ("1.2.3:80:80", "is not an address"),
        ("80:80/sctp", "not a port to publish"),
    ],
)
def test_a_port_that_cannot_be_published(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_published(text)


def test_an_address_is_part_of_all_addresses() -> None:
    everywhere, here, there = (parse_published(each) for each in ("80:1", "10.0.0.1:80:2", "10.0.0.2:80:3"))
    assert everywhere.clashes(here)
    assert here.clashes(everywhere)
    assert not here.clashes(there)
    assert not here.clashes(parse_published("10.0.0.1:80:2/udp"))
