"""The listening socket, bound before anything slow so that a taken port is told at once."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket

import psutil

from serve.errors import AddressNotUsable, PortInUse


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen on ``host:port``; port 0 takes a free one.

    Raises:
        PortInUse: another process has the port; the message names it where it can be seen.
        AddressNotUsable: the host is unknown or not ours, or the port is not permitted.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except UnicodeError:
        raise AddressNotUsable(host, port, "not a host name") from None
    except OSError as error:
        raise AddressNotUsable(host, port, error.strerror or str(error)) from None
    try:
        # Lets a restarted server take over a port whose old connections are in TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(host, port, _holder(port)) from None
        raise AddressNotUsable(host, port, error.strerror or str(error)) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """The socket's address as the start of a URL, such as ``http://127.0.0.1:8000``."""
    host, port = listening.getsockname()[:2]
    # The wildcard address is one to listen on, not one to call.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _holder(port: int) -> str | None:
    """Who listens on the port, as far as this user may see."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None
