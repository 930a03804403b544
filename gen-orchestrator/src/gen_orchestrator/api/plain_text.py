"""Texts that people give to things: they are printed on terminals and stored by databases, which take no control characters."""

import unicodedata


def checked_text(text: str, what: str) -> str:
    """The text; `ValueError` if it has control characters other than line ends and tabs: an escape sequence, or a NUL."""
    if any(unicodedata.category(letter) == "Cc" and letter not in "\n\t" for letter in text):
        raise ValueError(f"{what} {text[:40]!a} contains control characters")
    return text
