"""``serve``'s options about who may ask, how much and how often: limits, proxies, TLS, CORS."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar

import click

from taskserver.cli.exits import WrongUsage
from taskserver.cli.options import Number, option
from taskserver.config import DEFAULT_FAILED_SIGN_INS, DEFAULT_WAITERS, MAX_LINE_NUMBER, Limits

F = TypeVar("F", bound=Callable[..., Any])

_ORIGIN = re.compile(r"(https?)://((?:[a-z0-9._-]+|\[[0-9a-f:.]+\]))(?::([0-9]{1,5}))?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": "80", "https": "443"}  # which browsers leave out


def network(value: str) -> IPv4Network | IPv6Network:
    """``10.0.0.0/8``, or a single address."""
    try:
        return ip_network(value)
    except ValueError as error:
        raise WrongUsage(f"the proxy {value!r} must be an address or a network such as 10.0.0.0/8: {error}") from None


def origin(value: str) -> str:
    """``https://example.org``, as browsers send it, or ``*``."""
    if value == "*":
        return value
    match = _ORIGIN.fullmatch(value)
    if match is None:
        raise WrongUsage(f"the origin {value!r} must look like https://example.org or http://localhost:3000, or be *")
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS[scheme]) else f"{scheme}://{host}:{port}"


_RATE = Number(0, min_open=True)

_OPTIONS = (
    option(
        "--max-waiters",
        default=DEFAULT_WAITERS,
        type=click.IntRange(1),
        envvar="TASKSERVER_MAX_WAITERS",
        help="Requests that may wait at the same time; beyond that the answer is 429. Several workers share it.",
    ),
    option(
        "--max-waiters-per-key",
        type=click.IntRange(1),
        envvar="TASKSERVER_MAX_WAITERS_PER_KEY",
        help="The same with one API key.  [default: no bound]",
    ),
    option(
        "--max-rate",
        type=_RATE,
        metavar="PER_SECOND",
        envvar="TASKSERVER_MAX_RATE",
        help="Requests a second, and five seconds' worth of them at once; beyond that the answer is 429. Several"
        " workers share it.  [default: no bound]",
    ),
    option(
        "--max-rate-per-key",
        type=_RATE,
        metavar="PER_SECOND",
        envvar="TASKSERVER_MAX_RATE_PER_KEY",
        help="The same with one API key.  [default: no bound]",
    ),
    option(
        "--max-failed-sign-ins",
        default=DEFAULT_FAILED_SIGN_INS,
        type=click.IntRange(0),
        metavar="PER_MINUTE",
        envvar="TASKSERVER_MAX_FAILED_SIGN_INS",
        help="Wrong keys that an address may show in a minute; others are then answered with 429. 0: no bound.",
    ),
    option(
        "--max-output",
        type=click.IntRange(1, MAX_LINE_NUMBER),
        metavar="LINES",
        envvar="TASKSERVER_MAX_OUTPUT",
        help="Lines of one task's output; beyond that the answer is 413. A part of them, at most 1000, is for its end."
        "  [default: no bound]",
    ),
    option(
        "--trusted-proxy",
        "trusted_proxies",
        multiple=True,
        type=network,
        metavar="CIDR",
        envvar="TASKSERVER_TRUSTED_PROXY",
        help="Where a proxy is whose X-Forwarded-For or Forwarded counts; may be repeated.",
    ),
    option(
        "--tls-cert",
        metavar="FILE",
        envvar="TASKSERVER_TLS_CERT",
        help="Speak TLS with the certificate chain in FILE (PEM). SIGHUP has it read again.",
    ),
    option(
        "--tls-key",
        metavar="FILE",
        envvar="TASKSERVER_TLS_KEY",
        help="The certificate's private key (PEM, not encrypted).  [default: in the same file]",
    ),
    option(
        "--cors-origin",
        "cors_origins",
        multiple=True,
        type=origin,
        metavar="ORIGIN",
        envvar="TASKSERVER_CORS_ORIGIN",
        help="Let scripts of pages from there, such as https://example.org, read the answers; may be repeated; * means"
        " from everywhere.",
    ),
)


def bound_options(command: F) -> F:
    """The options of this module."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


def bounds(
    max_waiters: int,
    max_waiters_per_key: int | None,
    max_rate: float | None,
    max_rate_per_key: float | None,
    max_failed_sign_ins: int,
    max_output: int | None,
    tls_cert: str | None,
    tls_key: str | None,
    **others: Any,
) -> dict[str, Any]:
    """What the options mean as ``Settings``; ``others`` stay as they are."""
    if tls_key is not None and tls_cert is None:
        raise WrongUsage("--tls-key needs --tls-cert")
    limits = Limits(
        waiters=max_waiters,
        waiters_per_key=max_waiters_per_key,
        rate=max_rate,
        rate_per_key=max_rate_per_key,
        failed_sign_ins=max_failed_sign_ins or None,
        output_lines=MAX_LINE_NUMBER if max_output is None else max_output,
    )
    return {"limits": limits, "tls_cert": tls_cert, "tls_key": tls_key, **others}
