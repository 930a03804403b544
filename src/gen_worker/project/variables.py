"""`[env]` of cozy.toml: environment variables for the author's code that are not secret.

They are set in the process that imports the code, before the import. Existing values stay: those of the shell that
starts `cozyctl dev`, of the Dockerfile, of the platform's secrets.
"""

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping

MAX_VARIABLES = 200
MAX_VALUE_CHARACTERS = 8192


def _any_of(names: str) -> re.Pattern[str]:
    return re.compile("|".join(name.replace("*", ".*") for name in names.split()), re.IGNORECASE)


# Variables that are read before cozy.toml. A name that ends in `*` stands for all names with that prefix.
# `tests/unit/test_variables.py` compares these with all settings of a worker.
_READ_BY_THE_SYSTEM = _any_of("PATH HOME TMPDIR LD_* PYTHON*")
_READ_BY_US = _any_of(
    "WORKER_* GEN_* SCHEDULER_* COZY_* TENSORHUB_* FILE_API_* ORCHESTRATOR_* CUDA_* NVIDIA_*"
    " RECONNECT_* MAX_RECONNECT_* LOG_FORMAT USE_TLS MODEL_MANAGER_CLASS RUNPOD_POD_ID XDG_CACHE_HOME TRANSFORMERS_OFFLINE"
    " HUGGINGFACE* HUGGING_FACE_* HF_TOKEN HF_TOKEN_PATH HF_HOME HF_ENDPOINT HF_HUB_CACHE HF_HUB_OFFLINE HF_HUB_DISABLE_IMPLICIT_TOKEN"
    " WATCHFILES_* GRPC_* HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY NO_COLOR"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SECRET_NAME = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET|SIGNING)_?KEY)(_|$)")
_SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(hf_|gh[pos]_|github_pat_|glpat-|[spr]k[-_]|xox[abprs]-)(?=[\w-]*\d)[\w-]{16,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----|[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@]+@"
)


def variable_problem(name: str, value: object) -> str:
    """Why this variable must not be in `[env]`, with the fix; empty when it may."""
    if not _NAME.fullmatch(name):
        return f"[env] {name[:60]!r}: a variable's name has 1 to 64 of the characters A-Z, a-z, 0-9, _ and does not begin with a digit"
    if _READ_BY_THE_SYSTEM.fullmatch(name):
        return f"[env] {name}: the system or Python reads it before cozy.toml is read. {_elsewhere(name)}"
    if _READ_BY_US.fullmatch(name):
        return f"[env] {name}: gen-worker or the platform reads it itself, before cozy.toml is read. {_elsewhere(name)}"
    if not isinstance(value, str):
        shown = str(value).lower() if isinstance(value, (bool, int, float)) else "..."
        return f'[env] {name} must be a string, because environment variables are texts. Write: {name} = "{shown}"'
    if "\0" in value:
        return f"[env] {name} contains a NUL character, which environment variables cannot contain"
    if len(value) > MAX_VALUE_CHARACTERS:
        return f"[env] {name} has {len(value)} characters; at most {MAX_VALUE_CHARACTERS} are allowed. Put such a long text into a file"
    return ""


def looks_secret(name: str, value: str) -> bool:
    """Whether this is likely a password or a key, judged by its name or by how the value begins."""
    return bool(value) and (_SECRET_NAME.search(name.upper()) is not None or _SECRET_VALUE.search(value) is not None)


def secret_warnings(variables: Mapping[str, str], endpoint: str) -> Iterator[str]:
    """A sentence for each variable that should rather be a secret. It does not show the value."""
    for name, value in variables.items():
        if looks_secret(name, value):
            yield (
                f"[env] {name} looks like a secret, and everybody who gets the code or an image reads it. "
                f"Name it in [secrets] instead, and set it with: cozyctl secrets set OWNER/{endpoint} {name}"
            )


def set_variables(variables: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Set them in this process, except those in `given`, the environment that the program was started with."""
    for name, value in variables.items():
        if name not in given and not variable_problem(name, value):
            os.environ[name] = value


@contextlib.contextmanager
def without_variables(gone: Collection[str], kept: Collection[str], given: Mapping[str, str]) -> Iterator[None]:
    """For a reload: unset variables that the new cozy.toml no longer has. If the reload fails, these and `kept` are
    restored, because the old code continues to be served.
    """
    before = {name: os.environ.get(name) for name in (*gone, *kept) if name not in given}
    for name in gone:
        if name in before:
            os.environ.pop(name, None)
    try:
        yield
    except BaseException:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        raise


def _elsewhere(name: str) -> str:
    return f"Set it where the program is started: {name}=... cozyctl dev, or ENV {name}=... in the Dockerfile"
