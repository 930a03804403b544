"""Which IP addresses belong to the public Internet: a list of our own, so that every Python version gives the same
answer.

`ipaddress.is_global` is not used: its answers changed between Python releases (3.11.10, 3.12.4, 3.13), and it takes
wrapped IPv4 addresses for IPv6. An IPv4 address is public unless it is in `NOT_PUBLIC_IPV4`; an IPv6 address is public
if it is in 2000::/3 and not in `NOT_PUBLIC_IPV6`. An address that carries an IPv4 address (mapped, NAT64) is judged by
that; obsolete forms are refused whatever they carry. The lists are IANA's registries of special-purpose addresses, with
the RFC of each entry; anycast services of the network itself are refused, too, because no files are served from there.

https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

NOT_PUBLIC_IPV4: Mapping[str, str] = {
    "0.0.0.0/8": "this network (RFC 791)",
    "10.0.0.0/8": "private use (RFC 1918)",
    "100.64.0.0/10": "shared by customers of a provider (RFC 6598)",
    "127.0.0.0/8": "loopback (RFC 1122)",
    "168.63.129.16/32": "Azure's service for the machine itself",
    "169.254.0.0/16": "link-local, with the metadata service of clouds (RFC 3927)",
    "172.16.0.0/12": "private use (RFC 1918)",
    "192.0.0.0/24": "protocol assignments (RFC 6890)",
    "192.0.2.0/24": "documentation (RFC 5737)",
    "192.31.196.0/24": "AS112 (RFC 7535)",
    "192.52.193.0/24": "multicast tunnels (RFC 7450)",
    "192.88.99.0/24": "6to4 relays (RFC 7526)",
    "192.168.0.0/16": "private use (RFC 1918)",
    "192.175.48.0/24": "AS112 (RFC 7534)",
    "198.18.0.0/15": "benchmarks (RFC 2544)",
    "198.51.100.0/24": "documentation (RFC 5737)",
    "203.0.113.0/24": "documentation (RFC 5737)",
    "224.0.0.0/4": "multicast (RFC 5771)",
    "240.0.0.0/4": "reserved, with the broadcast address (RFC 1112, RFC 8190)",
}
NOT_PUBLIC_IPV6: Mapping[str, str] = {
    # Everything outside 2000::/3 is refused; these are named for the message.
    "::/128": "unspecified (RFC 4291)",
    "::1/128": "loopback (RFC 4291)",
    "::/96": "IPv4-compatible, deprecated (RFC 4291)",
    "::ffff:0:0:0/96": "IPv4-translated (RFC 2765)",
    "64:ff9b:1::/48": "NAT64 of a local network (RFC 8215)",
    "100::/64": "discard only (RFC 6666)",
    "100:0:0:1::/64": "dummy prefix (RFC 9780)",
    "5f00::/16": "segment routing (RFC 9602)",
    "fc00::/7": "private use (RFC 4193)",
    "fe80::/10": "link-local (RFC 4291)",
    "fec0::/10": "site-local, deprecated (RFC 3879)",
    "ff00::/8": "multicast (RFC 4291)",
    # Inside 2000::/3.
    "2001::/32": "Teredo (RFC 4380)",
    "2001::/23": "protocol assignments (RFC 2928)",
    "2001:db8::/32": "documentation (RFC 3849)",
    "2002::/16": "6to4, deprecated (RFC 3056, RFC 7526)",
    "2620:4f:8000::/48": "AS112 (RFC 7534)",
    "3ffe::/16": "6bone, returned (RFC 3701)",
    "3fff::/20": "documentation (RFC 9637)",
}
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: on networks without IPv4 every IPv4 server has such an address
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214: upper half of the interface identifier, before an IPv4 address
_IPV4 = tuple((IPv4Network(net), why) for net, why in NOT_PUBLIC_IPV4.items())
_IPV6 = tuple((IPv6Network(net), why) for net, why in NOT_PUBLIC_IPV6.items())


def is_public(address: str) -> bool:
    """Whether an IP address, as text in its usual form, belongs to the public Internet. False for invalid text."""
    return why_not_public(address) is None


@lru_cache(1024)
def why_not_public(address: str) -> str | None:
    """What kind of address it is if not public; None for a public one. An address with a zone (`%eth0`) belongs to this
    machine's links.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return "no IP address"
    if isinstance(ip, IPv4Address):
        return _why_ipv4(ip)
    if ip.scope_id is not None:
        return "an address on a link of this machine (RFC 4007)"
    return _why_ipv6(ip)


def _why_ipv4(ip: IPv4Address) -> str | None:
    return next((why for net, why in _IPV4 if ip in net), None)


def _why_ipv6(ip: IPv6Address) -> str | None:
    number = int(ip)
    carried = IPv4Address(number & 0xFFFF_FFFF)
    if ip in _MAPPED or ip in _NAT64:
        why = _why_ipv4(carried)
        return f"{carried} in IPv6: {why}" if why else None
    for net, why in _IPV6:
        if ip in net:
            return why
    if ip not in _GLOBAL_UNICAST:
        return "outside 2000::/3, the range of the public Internet (RFC 4291)"
    if number >> 32 & 0xFFFF_FFFF in _ISATAP and (inner := _why_ipv4(carried)):
        return f"a tunnel (ISATAP, RFC 5214) to {carried}: {inner}"
    return None
