"""Decides which server a client uses, with which key: from arguments, the environment, or the profile saved by `cozyctl login`."""

from collections.abc import Mapping

from gen_worker.client.profiles import Profile, ProfileError, Profiles, parse

CONNECT_TIMEOUT_S = 5.0
CONNECTIONS = 256
DEFAULT_URL = "http://127.0.0.1:8080"  # address of `cozyctl up`


def find_server(url: str | None, key: str | None, profile: str | None, env: Mapping[str, str]) -> tuple[str, str]:
    """Base URL and key; an empty key for none. `ProfileError` for a requested profile that does not exist.

    The order: `url` and `key`, the requested profile, `COZY_URL` and `COZY_API_KEY`, the default profile. The key of a
    profile is sent only to the address of that profile.
    """
    profiles = Profiles.of_user(env)
    if profile is not None:
        name = parse(profile)
        found = profiles.read(*name)
        if found is None:
            known = ", ".join("/".join(each) for each in profiles.all()) or "none"
            raise ProfileError(f"no profile {'/'.join(name)!r}. Profiles: {known}. Make one: cozyctl login --profile {profile}")
        env = {}
    else:
        found = profiles.read(*profiles.current())
    found = found or Profile()
    where = (url or env.get("COZY_URL") or found.orchestrator_url or DEFAULT_URL).rstrip("/")
    if key is None:
        key = env.get("COZY_API_KEY") or (found.token if found.orchestrator_url.rstrip("/") == where else "")
    if not key.isascii() or not key.isprintable():
        raise ValueError("the key contains invalid characters; copy it again")
    return where, key
