"""TLS: the certificate that a server shows, and shows anew when it was replaced."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable

from taskserver.config import Settings
from taskserver.errors import StartupError

log = logging.getLogger(__name__)


class Certificate:
    """The certificate and key of a server. ``context`` is for its sockets; None if the settings name no certificate."""

    def __init__(self, settings: Settings) -> None:
        """Raises StartupError if the files cannot be used."""
        self._cert, self._key = settings.tls_cert, settings.tls_key
        self.context: ssl.SSLContext | None = None
        if self._cert is not None:
            try:
                self.context = self._load(_new_context())
            except (OSError, ValueError) as error:
                raise StartupError(self._problem(error)) from error

    def reload(self) -> None:
        """Read the files again, for connections to come. Files that cannot be used change nothing."""
        if self.context is None:
            return
        try:
            # First into another context: one that took a certificate without its key is of no use any more.
            self._load(_new_context())
            self._load(self.context)
        except (OSError, ValueError) as error:
            log.error("%s; going on with the certificate that was there before", self._problem(error))
        else:
            log.info("the TLS certificate has been read again")

    def reload_at_hangup(self, then: Callable[[], None] = lambda: None) -> None:
        """Have SIGHUP reload it, and ``then`` do what else is due. Without a certificate SIGHUP stays as it is."""

        def reload() -> None:
            self.reload()
            then()

        if self.context is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        assert self._cert is not None
        context.load_cert_chain(self._cert, self._key, password=_no_password)
        return context

    def _problem(self, error: OSError | ValueError) -> str:
        files = self._cert if self._key is None else f"{self._cert} and {self._key}"
        reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else None
        return f"cannot use the TLS certificate and key in {files}: {reason or _strerror(error)}"


def _new_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)  # the ciphers that Python's developers recommend
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _strerror(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is here to give a password")
