"""The HTTP proxy between this client and the server, as gRPC chooses it."""

import os
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # gRPC takes the first that is set
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True)
class Proxy:
    """A proxy and the environment variable that names it."""

    address: str  # without the user and password that the variable may hold
    variable: str

    def __str__(self) -> str:
        return f"{self.address} ({self.variable})"


def host_of(url: str) -> str:
    """The host of `host:port`, an IPv6 address without its brackets."""
    return url.rpartition(":")[0].strip("[]")


def is_loopback(url: str) -> bool:
    """Whether the server at `host:port` is on this machine, where no proxy can reach it for us."""
    host = host_of(url).lower()
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(url: str) -> Proxy | None:
    """The proxy that a connection to `host:port` goes through, or None."""
    if is_loopback(url):
        return None
    variable = next((name for name in _VARIABLES if os.environ.get(name)), None)
    if variable is None:
        return None
    exceptions = next((value for name in _EXCEPTIONS if (value := os.environ.get(name))), "")
    if any(_covers(entry.strip(), host_of(url)) for entry in exceptions.split(",") if entry.strip()):
        return None
    address = urlsplit(os.environ[variable])
    return Proxy(f"{address.scheme}://{address.netloc.rpartition('@')[2]}", variable)


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of `no_proxy` is about `host`: the end of its name, or a network it is in."""
    if host.lower().endswith(entry.lower()):
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False
