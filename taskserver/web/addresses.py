"""Where a request comes from, also behind proxies.

A header can be written by anybody. So it counts only as far as those who wrote
it are trusted: the connection's other side says who asked it, that one, if it
is trusted too, who asked it, and so on, from the right to the left.

Rules:

- ``X-Forwarded-For`` (a list of addresses) or ``Forwarded`` (RFC 7239: its ``for``).
- A proxy writes one of them and hands the other one on as its client sent it.
  Where both are there and disagree, neither counts.
- What is no address (``unknown``, ``_hidden``, or nonsense) ends the way: it is
  its writer who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

TRUSTED_PROXIES = web.AppKey("trusted_proxies", tuple[Network, ...])
"""The networks in which an application's proxies are."""

IPV6_PREFIX = 64  # what one customer has at least (RFC 6177): whoever has one address has all of these


def client_address(request: web.Request) -> str:
    """The address of who asks; empty if it is not known."""
    trusted = request.app[TRUSTED_PROXIES]
    return address_behind(request, trusted)


def address_behind(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """The same of a request that may belong to no application, since it cannot be read."""
    peer = _parse(request.remote or "")
    if peer is None:
        return ""
    return str(_behind(peer, request, trusted) if trusted else peer)


def address_group(address: str) -> str:
    """What has to be counted together: an IPv4 address, or the network of an IPv6 one."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, IPV6_PREFIX), strict=False))
    return address


def _behind(peer: Address, request: web.BaseRequest, trusted: Sequence[Network]) -> Address:
    """Who asks, by the proxies' word."""
    said = []
    if "X-Forwarded-For" in request.headers:
        said.append(",".join(request.headers.getall("X-Forwarded-For")).split(","))
    if "Forwarded" in request.headers:
        said.append([element.get("for", "") for element in request.forwarded])
    found = {_follow(peer, hops, trusted) for hops in said}
    return found.pop() if len(found) == 1 else peer


def _follow(address: Address, hops: Sequence[str], trusted: Sequence[Network]) -> Address:
    """The last one on the way back along ``hops`` whom nobody who is trusted can name another one for."""
    for hop in reversed(hops):
        before = _parse(hop.strip()) if _is_in(address, trusted) else None
        if before is None:
            break
        address = before
    return address


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> Address | None:
    """An address as headers have it: maybe in brackets, maybe with a port. A mapped IPv4 address is an IPv4 one."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
