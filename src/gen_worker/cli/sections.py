"""The sections of `cozyctl --help`, which also give the order of the commands. Commands of other packages that are not named here follow
under `OTHERS`.
"""

from collections.abc import Iterable, Mapping

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Write functions": ("init", "import", "check", "discover", "run", "dev", "build"),
    "Models": ("models",),
    "Run the platform": ("up", "ps", "workers", "logs", "drain", "doctor"),
    "Release": ("publish", "builds", "releases", "diff", "tags", "promote", "rollback", "golden", "gates", "shadow", "rm"),
    "Call functions": ("invoke", "runs", "replay", "files", "client"),
    "Accounts, keys and secrets": ("login", "logout", "profile", "keys", "secrets", "usage"),
    "Help": ("explain", "completion"),
}
OTHERS = "More commands"


def in_sections(names: Iterable[str]) -> dict[str, list[str]]:
    """These names by section, in the order in which they are shown. Empty sections are left out."""
    left = set(names)
    found = {title: [name for name in section if name in left] for title, section in SECTIONS.items()}
    others = sorted(left - {name for section in found.values() for name in section})
    return {title: section for title, section in {**found, OTHERS: others}.items() if section}
