"""Where a server listens."""

from __future__ import annotations

import ipaddress
import logging
import socket

from segearth.errors import ConfigError

logger = logging.getLogger(__name__)


def check_free(host: str, port: int) -> None:
    """Checks that a server can listen there; call it before a model is opened. Warns where others can reach it.

    Args:
        host: Name or address of this machine.
        port: From 1 to 65535.

    Raises:
        ConfigError: The port is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            trial.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot listen at {host}:{port} ({reason}); choose another --port or --host") from error
    if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        logger.warning("%s can be reached from other machines, and nobody is asked for a password", host)


def address_of(host: str, port: int) -> str:
    """Returns the address to open in a browser on this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"
