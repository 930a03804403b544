"""URL-safe names: slugs of endpoints and functions, and the nearest known name to a mistyped one."""

import re
from collections.abc import Iterable

MAX_SLUG_LENGTH = 128
RUN_ID_RULE = "expected 1 to 128 letters, digits, '.', '_' or '-', the first one a letter or digit"
TAG_RULE = "expected 1 to 64 lower-case letters, digits, '.', '_' or '-', the first one a letter or digit"
_TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NO_SECRETS = (
    *("PATH", "HOME", "LD_", "PYTHON", "WORKER_", "GEN_", "SCHEDULER_", "COZY_", "LOG_FORMAT", "USE_TLS", "CUDA_", "RECONNECT_DELAY"),
    "NVIDIA_VISIBLE",
)
SECRET_NAME_RULE = f"a secret's name has 1 to 64 of the characters A-Z, a-z, 0-9, _ and begins with none of {', '.join(_NO_SECRETS)}"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGITS = re.compile(r"[0-9]{1,19}")


def slugify(name: str) -> str:
    """`medasr_transcribe` becomes `medasr-transcribe`; `ValueError` when nothing usable is left.

    Lower case; every run outside `[a-z0-9.]` becomes one `-`; `-` and `.` are trimmed from both ends; at most 128 characters.
    """
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:MAX_SLUG_LENGTH].strip("-.")
    if not slug:
        raise ValueError(f"name {name!r} has no letter a-z or digit in it, so no URL-safe name can be made of it")
    return slug


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known name most like `name`, or None when none is close. `likeness`, 0 to 1: difflib's ratio at least."""
    import difflib  # imported here, so that an author's module without mistakes does not pay for it

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """Part of a sentence: ` Did you mean 'x'?` or nothing."""
    found = nearest(name, known, likeness=likeness)
    return f" Did you mean {found!r}?" if found else ""


def is_run_id(text: str) -> bool:
    """Whether `text` may be the id of a run: it becomes a folder name, a part of URLs and a log value.

    The one rule for ids of runs and sessions, wherever they come from. No id begins with a dot, so names with a leading
    dot are free for our own folders beside those of the runs.
    """
    return _ID.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether `text` may be the name of a tag: it becomes a part of refs (`owner/endpoint/function:tag`) and of URLs.

    The one rule for tags, for everyone who moves or uses one.
    """
    return _TAG.fullmatch(text) is not None


def is_secret_name(text: str) -> bool:
    """Whether `text` may be the name of a secret: an environment variable of a worker that is neither ours nor the system's."""
    return _SECRET.fullmatch(text) is not None and not text.upper().startswith(_NO_SECRETS)


def whole_number(text: str) -> int | None:
    """The number in a text of ASCII digits, such as a header; None for anything else. (`str.isdigit` accepts more than
    `int` can read: `²`.)
    """
    return int(text) if _DIGITS.fullmatch(text) else None
