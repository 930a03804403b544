"""Where huggingface_hub keeps its files on this machine and which account it uses, by the library's own variables and
files.

tests/integration/test_hf_account.py compares this with `huggingface_hub.constants`. An empty variable counts as absent.
"""

import sys
from pathlib import Path

import msgspec

from gen_worker.settings import ModelSettings

DEFAULT_ENDPOINT = "https://huggingface.co"
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})  # huggingface_hub.constants.ENV_VARS_TRUE_VALUES


class Token(msgspec.Struct, frozen=True):
    """An access token, and where it was found, for messages. Both are empty when there is none."""

    value: str = ""
    source: str = ""

    def __repr__(self) -> str:
        return f"Token(from {self.source or 'nowhere'})"


class HfAccount(msgspec.Struct, frozen=True):
    """`cache` holds the `models--owner--name` folders. `endpoint` has no slash at its end. `is_offline`: no requests are allowed."""

    home: Path
    cache: Path
    token_path: Path
    endpoint: str
    is_offline: bool
    variables: tuple[Token, ...]  # best first
    no_implicit_token: bool

    @classmethod
    def of(cls, settings: ModelSettings) -> "HfAccount":
        home = _folder(settings.hf_home) or (_folder(settings.xdg_cache_home) or _folder("~/.cache") or Path()) / "huggingface"
        return cls(
            home,
            _folder(settings.hf_hub_cache) or _folder(settings.huggingface_hub_cache) or home / "hub",
            _folder(settings.hf_token_path) or home / "token",
            (settings.hf_endpoint or DEFAULT_ENDPOINT).rstrip("/"),
            (settings.hf_hub_offline or settings.transformers_offline).upper() in _TRUE,
            (
                Token(settings.hf_token, "the variable HF_TOKEN"),
                Token(settings.hugging_face_hub_token, "the variable HUGGING_FACE_HUB_TOKEN"),
                Token(settings.huggingface_token, "the variable HUGGINGFACE_TOKEN"),
                Token(settings.huggingfacehub_api_token, "the variable HUGGINGFACEHUB_API_TOKEN"),
            ),
            settings.hf_hub_disable_implicit_token.upper() in _TRUE,
        )

    def token(self) -> Token:
        """The token to send: from a variable, else from the file that `hf auth login` writes. Read anew at each call,
        because the user may log in later.
        """
        if self.no_implicit_token:
            return Token()
        for token in self.variables:
            if found := _clean(token.value):
                return Token(found, token.source)
        try:
            found = _clean(self._refreshed() or self.token_path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return Token()
        return Token(found, f"the file {self.token_path} (written by: hf auth login)") if found else Token()

    def _refreshed(self) -> str:
        """The file's token as the library returns it: it renews a token from a browser login, which lasts only hours."""
        hub, constants = sys.modules.get("huggingface_hub"), sys.modules.get("huggingface_hub.constants")
        if hub is None or constants is None or Path(constants.HF_TOKEN_PATH) != self.token_path or not self.token_path.is_file():
            return ""
        return str(hub.get_token() or "")


def _folder(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _clean(text: str) -> str:
    """The token without line breaks, which headers must not contain."""
    token = text.replace("\r", "").replace("\n", "").strip()
    return token if token.isascii() and token.isprintable() else ""
