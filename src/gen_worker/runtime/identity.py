"""This worker's identity for the scheduler: WORKER_JWT and its rotation."""

MAX_TOKEN_BYTES = 16 << 10


class Identity:
    """Holds the token for the next connection. The token is never logged."""

    def __init__(self, token: str) -> None:
        token = token.strip()
        if not token:
            raise ValueError("WORKER_JWT is empty; the scheduler gives each worker one, and without it no connection is possible")
        self.token = _checked(token)

    def rotate(self, token: str) -> None:
        """Use this token from the next connection on; `ValueError` when it cannot be a token."""
        self.token = _checked(token.strip())

    def __repr__(self) -> str:
        return "Identity(token=<redacted>)"


def _checked(token: str) -> str:
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError(f"the worker token has {len(token)} characters; at most {MAX_TOKEN_BYTES} are taken")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the worker token contains invalid characters (spaces, line breaks, or not ASCII)")
    return token
