"""Makes tokenizers safe for several runs at once.

A call of a fast tokenizer sets padding and truncation on the tokenizer and then encodes. Of two simultaneous calls, one
would encode with the other's padding.
"""

import copy
import threading
from collections.abc import Callable, Iterable
from typing import Any

_METHODS = ("_encode_plus", "_batch_encode_plus")


class OneAtATime:
    """A method that runs in one thread at a time. A copy of its tokenizer gets a lock of its own."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._method(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "OneAtATime":
        return OneAtATime(copy.deepcopy(self._method, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return OneAtATime, (self._method,)


def share(parts: Iterable[Any]) -> None:
    """Make the tokenizers among these objects, and those inside processors, safe to call from several threads."""
    for part in parts:
        for tokenizer in (part, getattr(part, "tokenizer", None)):
            for name in _METHODS:
                method = getattr(tokenizer, name, None)
                if callable(method) and not isinstance(method, OneAtATime) and callable(getattr(tokenizer, "convert_tokens_to_ids", None)):
                    setattr(tokenizer, name, OneAtATime(method))
