"""How workers of a release are started."""

import msgspec

from gen_orchestrator.domain.scaling import ScalingLimits


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Starts from a release's source in a folder, or from its image. `env` goes into the worker's environment;
    `variables` are the project's own (`[env]`), which all others override.
    """

    release_id: str
    owner: str
    folder: str = ""
    manifest: str = ""
    python: str = ""
    image: str = ""
    env: dict[str, str] = {}
    variables: dict[str, str] = {}
    limits: ScalingLimits = ScalingLimits()
