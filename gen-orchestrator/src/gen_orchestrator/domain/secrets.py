"""Secrets of endpoints as stored: encrypted, in versions that are only added.

The last version counts; an empty one means that the secret was removed. Earlier versions stay, because what workers wrote while they had
them must be redacted later, too.
"""

import msgspec

from gen_worker.names import SECRET_NAME_RULE, is_secret_name

MIN_CHARACTERS = 8
MAX_CHARACTERS = 32_768


class StoredSecret(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a secret. Only the data folder's key can decrypt `sealed`; empty means removed."""

    owner: str
    endpoint: str
    name: str
    version: int
    sealed: bytes
    set_at: float
    set_by: str


def checked(name: str, value: str) -> None:
    """`ValueError` for an invalid name or value; the message never contains the value."""
    if not is_secret_name(name):
        raise ValueError(f"secret {name[:60]!r}: {SECRET_NAME_RULE}")
    if len(value.strip()) < MIN_CHARACTERS or len(value) > MAX_CHARACTERS:
        raise ValueError(
            f"the value of {name} has {len(value)} characters; expected {MIN_CHARACTERS} to {MAX_CHARACTERS}: "
            "a shorter one could not be taken out of logs and errors without harm to them"
        )
    if "\0" in value:
        raise ValueError(f"the value of {name} contains a NUL character, which environment variables cannot contain")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the value of {name} cannot be encoded as UTF-8") from None
