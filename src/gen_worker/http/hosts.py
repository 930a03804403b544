"""Which requests a server on this machine answers: those that name it, from its own pages or pages of this machine.

DNS rebinding: a page at evil.example lets its name resolve to 127.0.0.1. The browser then takes this server for
evil.example, sends equal Host and Origin headers, and lets the page read every answer. The page cannot choose the name
in Host. So on loopback only known names are accepted, on every route and method.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class HostPolicy(msgspec.Struct, frozen=True):
    """`names` None: any host is accepted, for a server that listens on a network under names it cannot know."""

    names: frozenset[str] | None = None

    @classmethod
    def listening_on(cls, host: str, allowed: Iterable[str] = ()) -> "HostPolicy":
        """The policy for a server that listens on `host` and may also be reached by the names `allowed`; `ValueError`
        for an invalid name.
        """
        extra = [_checked(name) for name in allowed]
        if not extra and not is_loopback(host):
            return cls()
        return cls(frozenset([*LOOPBACK_NAMES, host.strip("[]").lower(), *extra]))

    def serves(self, host_header: str) -> bool:
        """Whether a request with this Host header is for this server. Ports are not compared: a forwarded port differs."""
        if self.names is None:
            return True
        name = host_name(host_header)
        return name is not None and name in self.names

    def is_own_page(self, origin: str, host_header: str) -> bool:
        """Whether a page of this origin may act here. `ValueError` for an invalid origin."""
        try:
            site = urlsplit(origin)
            name, _ = site.hostname, site.port
        except ValueError:
            raise ValueError(f"the Origin {origin[:100]!r} is invalid; expected scheme://host:port") from None
        return (bool(site.netloc) and site.netloc.lower() == host_header.lower()) or name in LOOPBACK_NAMES


@lru_cache(64)
def host_name(host_header: str) -> str | None:
    """The name or address in a Host header, in lower case; None when it is invalid."""
    if any(char in host_header for char in "/@?#\\ "):
        return None
    try:
        site = urlsplit(f"//{host_header}")
        name, _ = site.hostname, site.port
    except ValueError:
        return None
    return name.removesuffix(".") if name else None


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _checked(name: str) -> str:
    found = host_name(name if name.count(":") < 2 or name.startswith("[") else f"[{name}]")
    if found is None or "*" in found:
        raise ValueError(f"--allow-host {name!r}: expected a host name or address, such as my-machine.local")
    return found
