"""Where a request comes from (``web.addresses``): whose word counts, and how far."""

from __future__ import annotations

from ipaddress import ip_network
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from taskserver.web.addresses import TRUSTED_PROXIES, address_group, client_address

PROXY, INNER_PROXY, CLIENT, STRANGER = "10.0.0.1", "10.1.2.3", "198.51.100.7", "203.0.113.9"
TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48")


def seen(peer: str, *headers: tuple[str, str], trusted: tuple[str, ...] = TRUSTED) -> str:
    """The address that is believed."""
    app = web.Application()
    app[TRUSTED_PROXIES] = tuple(ip_network(network) for network in trusted)
    transport = mock.Mock()
    transport.get_extra_info = lambda name, default=None: (peer, 4711) if name == "peername" else default
    return client_address(make_mocked_request("GET", "/", CIMultiDict(headers), app=app, transport=transport))


def xff(value: str) -> tuple[str, str]:
    return ("X-Forwarded-For", value)


def forwarded(value: str) -> tuple[str, str]:
    return ("Forwarded", value)


def test_without_a_proxy_it_is_the_connections_other_side() -> None:
    assert seen(CLIENT) == CLIENT
    assert seen("2001:db8::1") == "2001:db8::1"


@pytest.mark.parametrize("headers", [[xff(STRANGER)], [forwarded(f"for={STRANGER}")]])
def test_nobody_else_is_believed(headers: list[tuple[str, str]]) -> None:
    assert seen(CLIENT, *headers) == CLIENT
    assert seen(PROXY, *headers, trusted=()) == PROXY


@pytest.mark.parametrize(
    "headers",
    [
        [xff(CLIENT)],
        [xff(f" {CLIENT} ")],
        [xff(f"{CLIENT}:4711")],
        [xff(f"{STRANGER}, {CLIENT}")],  # what stands on the left was there before, whoever wrote it
        [xff(f"{CLIENT}, {INNER_PROXY}")],
        [xff(f"{STRANGER}, {PROXY}, {CLIENT}, {INNER_PROXY}")],
        [xff(STRANGER), xff(CLIENT)],  # two fields are one list
        [xff(f"unknown, {CLIENT}")],
        [xff(f"::ffff:{CLIENT}")],
        [forwarded(f"for={CLIENT}")],
        [forwarded(f"For={CLIENT};proto=https;by=10.0.0.1")],
        [forwarded(f'for="{CLIENT}:4711"')],
        [forwarded(f"for={STRANGER}, for={CLIENT}")],
        [forwarded(f"for={CLIENT}, for={INNER_PROXY};proto=http")],
        [forwarded(f"for={STRANGER}"), forwarded(f"for={CLIENT}")],
        [xff(CLIENT), forwarded(f"for={CLIENT}")],
    ],
)
def test_a_proxy_is_believed_hop_by_hop_from_the_right(headers: list[tuple[str, str]]) -> None:
    assert seen(PROXY, *headers) == CLIENT


@pytest.mark.parametrize("value", ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:4711"])
def test_an_address_of_ipv6(value: str) -> None:
    assert seen("2001:db8:1::1", xff(value)) == "2001:db8::7"
    assert seen("2001:db8:1::1", forwarded(f'for="{value}"')) == "2001:db8::7"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [xff("")],
        [xff("unknown")],
        [xff(f"{CLIENT}, nonsense")],
        [forwarded("proto=https")],
        [forwarded("for=_hidden")],
        [forwarded('for="')],
        [forwarded(f"for={CLIENT}, for=unknown")],
        # It writes one of them, and the other one comes from its client as it is: which one, nobody can tell.
        [xff(CLIENT), forwarded(f"for={STRANGER}")],
    ],
)
def test_where_the_way_ends_it_is_the_proxy_that_asks(headers: list[tuple[str, str]]) -> None:
    assert seen(PROXY, *headers) == PROXY


def test_only_proxies_on_the_way() -> None:
    assert seen(PROXY, xff(f"10.9.9.9, {INNER_PROXY}")) == "10.9.9.9"


def test_an_ipv4_address_written_as_an_ipv6_one_is_the_same() -> None:
    assert seen(f"::ffff:{PROXY}", xff(CLIENT)) == CLIENT
    assert seen(f"::ffff:{CLIENT}") == CLIENT


def test_a_connection_that_is_gone_has_no_address() -> None:
    assert seen("") == ""


def test_one_customers_addresses_count_together() -> None:
    assert address_group(CLIENT) == CLIENT
    assert address_group("2001:db8:0:7::1") == address_group("2001:db8:0:7:ffff::2") == "2001:db8:0:7::/64"
    assert address_group("2001:db8:0:8::1") != address_group("2001:db8:0:7::1")
    assert address_group("") == ""
