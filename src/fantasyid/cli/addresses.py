"""Where a server listens."""

import socket
from ipaddress import ip_address

from fantasyid.core.errors import InvalidRequestError


def is_this_machine(host: str) -> bool:
    """Whether only people at this machine can come.

    Args:
        host: An address or a name to listen on.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(who: str, host: str, port: int) -> socket.socket:
    """Take a port, before time is spent.

    Args:
        who: Listens there, for messages, such as `"The server"`.
        host: An address or a name to listen on.
        port: Of it.

    Raises:
        InvalidRequestError: It is taken, or there is no such address here.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InvalidRequestError(
            f"{who} cannot listen on {host}:{port} ({error.strerror or error}); choose another --host or --port."
        ) from error
