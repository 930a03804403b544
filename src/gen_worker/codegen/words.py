"""Makes names for generated code from any text in a schema or an address."""

import re
import unicodedata
from collections.abc import Collection


def words(text: str) -> list[str]:
    """The words in a name: `my-endpoint.v2` and `someName` are split into parts. Letters of all alphabets count."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", unicodedata.normalize("NFKC", text))
    return [word for word in re.split(r"[^\w]+|_+", spaced) if word]


def pascal(text: str, empty: str) -> str:
    """`MyEndpoint`. A name that begins with a digit gets `empty` before it."""
    joined = "".join(word[:1].upper() + word[1:] for word in words(text))
    return joined if joined[:1].isidentifier() else f"{empty}{joined}"


def snake(text: str, empty: str) -> str:
    """`my_endpoint`, with the same rule for digits."""
    joined = "_".join(word.lower() for word in words(text))
    return joined if joined[:1].isidentifier() else f"{empty}_{joined}".rstrip("_")


def free(name: str, taken: Collection[str]) -> str:
    """The name, followed by as many underscores as needed to be unused."""
    while name in taken:
        name += "_"
    return name
