"""Saved server addresses and keys: profiles of two levels, as in the public command line tool.

    ~/.cozy/<name>/<profile>/config.yaml     an account, and within it dev, staging, prod
    ~/.cozy/current                          `<name>/<profile>`: the default

`COZY_URL` and `COZY_API_KEY` override them; `COZY_PROFILE` (`name` or `name/profile`) selects another one.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

DEFAULT_NAME = DEFAULT_PROFILE = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(r"([a-z_]+):\s*(.*)")


class ProfileError(ValueError):
    """The profile does not exist, or its name is invalid."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the public tool's files; in ours, both addresses are the same."""

    hub_url: str = ""
    builder_url: str = ""
    orchestrator_url: str = ""
    tenant_id: str = ""
    token: str = ""


class Profiles:
    """The profiles of one user."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = env

    @classmethod
    def of_user(cls, env: Mapping[str, str]) -> "Profiles":
        """In the home folder, or in `COZY_HOME`."""
        return cls(Path(env.get("COZY_HOME") or Path.home() / ".cozy"), env)

    def current(self) -> tuple[str, str]:
        """Name and profile of the default."""
        chosen = self._env.get("COZY_PROFILE") or _text(self._folder / "current")
        return parse(chosen) if chosen else (DEFAULT_NAME, DEFAULT_PROFILE)

    def read(self, name: str, profile: str) -> Profile | None:
        """A profile; None when it does not exist or is empty."""
        found = {}
        for line in _text(self._path(name, profile)).splitlines():
            matched = _LINE.fullmatch(line.strip())
            if matched is not None and matched[1] in Profile.__struct_fields__:
                found[matched[1]] = _scalar(matched[2])
        return Profile(**found) if found else None

    def write(self, name: str, profile: str, values: Profile) -> Path:
        """Save a profile, readable by its user only."""
        path = self._path(name, profile)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(0o600)
        # A JSON string is also a YAML scalar.
        new.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in msgspec.to_builtins(values).items()))
        new.replace(path)
        return path

    def use(self, name: str, profile: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / "current").write_text(f"{name}/{profile}\n")

    def delete(self, name: str, profile: str) -> None:
        """`ProfileError` when it does not exist."""
        try:
            self._path(name, profile).unlink()
        except FileNotFoundError:
            raise ProfileError(f"no profile {name}/{profile}") from None

    def all(self) -> list[tuple[str, str]]:
        return sorted((path.parent.parent.name, path.parent.name) for path in self._folder.glob("*/*/config.yaml"))

    def _path(self, name: str, profile: str) -> Path:
        return self._folder / name / profile / "config.yaml"


def parse(text: str) -> tuple[str, str]:
    """`name` or `name/profile`; `ProfileError`."""
    name, _, profile = text.strip().partition("/")
    profile = profile or DEFAULT_PROFILE
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(profile):
        raise ProfileError(f"profile {text[:80]!r}: expected name or name/profile, of letters, digits, '.', '_' and '-'")
    return name, profile


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _scalar(text: str) -> str:
    text = text.strip()
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            return ""
    return text.strip("'")
