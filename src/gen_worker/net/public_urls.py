"""Parses URLs given by callers, once and strictly: what is checked is what we connect to.

URL parsers differ (RFC 3986, WHATWG, curl, Python), and each difference lets a URL pass a check by one and reach
another host by the other. So there is one parser, this one. A request is made from its parts and never from the text.
Anything that parsers could disagree about is refused: credentials, backslashes, control characters, numbers as hosts in
any form but `a.b.c.d`, names that look like others.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote

import msgspec

MAX_URL_CHARS = 16_384
PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F))  # existing escapes stay unchanged
# Names for this machine or its network (RFC 6761, 6762, 8375; ICANN's reserved .internal; names used by some networks).
_LOCAL_NAMES = ("localhost", "local", "localdomain", "internal", "intranet", "home.arpa", "lan", "corp", "onion", "alt")


class BlockedURLError(ValueError):
    """The URL must not be fetched by this worker."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"input url blocked: {reason}")


class PrivateHostError(BlockedURLError):
    """The URL is well formed, and its host is of this machine or network."""


class PublicURL(msgspec.Struct, frozen=True):
    """A URL that may be requested if its host has only public addresses. `host` is ASCII, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int
    target: str  # path and query, escaped

    @property
    def netloc(self) -> str:
        """The Host header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"


def read_url(url: str) -> PublicURL:
    """The URL's parts; `BlockedURLError` says what is wrong with it. Makes no DNS request."""
    if len(url) > MAX_URL_CHARS:
        raise BlockedURLError(f"it has {len(url)} characters; at most {MAX_URL_CHARS} are taken")
    if "\\" in url or any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in url):
        raise BlockedURLError("it holds a backslash or a control character; escape them (%5C)")
    found = _URL.fullmatch(url)
    scheme = found["scheme"].lower() if found else ""
    if found is None or scheme not in PORTS:
        raise BlockedURLError(f"scheme {scheme!r}; expected http or https")
    authority = found["authority"] or ""
    if "@" in authority or not authority:
        raise BlockedURLError("it needs a host and must not contain credentials")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise BlockedURLError(f"host {authority[:100]!r}; expected name, name:port or [address]:port")
    port = int(parts["port"] or PORTS[scheme])
    if port > 65535:
        raise BlockedURLError(f"port {port}; expected at most 65535")
    target = quote(found["path"] or "/", safe=_SAFE)
    if found["query"] is not None:
        target += "?" + quote(found["query"], safe=_SAFE)
    return PublicURL(scheme, read_host(parts["host"]), port, target)


def read_host(text: str) -> str:
    """A host in the form used for lookup: an address in its one form, or a name in ASCII; `BlockedURLError` for anything else."""
    shown = f"host {text[:100]!r}"
    if text.startswith("["):
        try:
            address = IPv6Address(text[1:-1])
        except AddressValueError:
            raise BlockedURLError(f"{shown} is not an IPv6 address") from None
        if address.scope_id is not None:
            raise BlockedURLError(f"{shown} names a link of this machine")
        return str(address)
    name = _ascii(text, shown)
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # WHATWG: such a host is an IPv4 address, and libraries also accept octal, hex and short forms
        try:
            return str(IPv4Address(name))
        except AddressValueError:
            raise BlockedURLError(f"{shown}; an IPv4 address is four numbers without leading zeros") from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BlockedURLError(f"{shown} is not a host name")
    if len(labels) == 1 or any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES):
        raise PrivateHostError(f"{shown} is a name within a machine or network; expected a public one such as files.example.com")
    return name


def _ascii(text: str, shown: str) -> str:
    """The name in ASCII (IDNA 2003, as in Python). A name that this would change looks like another one: refused."""
    if text.isascii():
        return text.lower()
    try:
        name = text.encode("idna").decode()
        back = name.encode().decode("idna")
    except UnicodeError:
        raise BlockedURLError(f"{shown} is not a host name") from None
    if back != text.lower():
        raise BlockedURLError(f"{shown} reads as {back[:100]!r}; write its ASCII form (xn--...)")
    return name.lower()
