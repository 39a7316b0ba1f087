"""Where a server listens."""

from ipaddress import ip_address


def is_this_machine(host: str) -> bool:
    """Whether only people at this machine can come.

    Args:
        host: An address or a name to listen on.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
