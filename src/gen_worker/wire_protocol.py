"""The version of the worker wire protocol that this package speaks."""

WIRE_PROTOCOL_MAJOR = 1
WIRE_PROTOCOL_MINOR = 0


def wire_protocol_version_string() -> str:
    """`MAJOR.MINOR`: a new major breaks, a new minor only adds."""
    return f"{WIRE_PROTOCOL_MAJOR}.{WIRE_PROTOCOL_MINOR}"
