"""Names of functions with their tags, as callers write them."""

from gen_orchestrator.hub.registry_errors import TagNameError
from gen_worker.names import is_tag

PROD = "prod"
DEV = "dev"


def split_tag(name: str) -> tuple[str, str]:
    """`function[:tag]` or `function@release` as function and tag. The default tag is `prod`; a release is returned as
    `@release` in place of a tag. `TagNameError` for an invalid tag, such as an empty one.
    """
    function, at, release_id = name.partition("@")
    if at and ":" not in function:
        return function, f"@{release_id}"
    function, colon, tag = name.partition(":")
    if not colon:
        return function, PROD
    if not is_tag(tag):
        raise TagNameError(tag)
    return function, tag
