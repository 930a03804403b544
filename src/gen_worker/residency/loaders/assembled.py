"""The object that a library builds around a model's components, kept so that it can be reused when the components
return after an eviction.
"""

from collections.abc import Callable, Mapping
from typing import Any


class Assembled:
    """A pipeline around its components. `views` makes the object that one run is given."""

    def __init__(self, pipe: Any, views: Callable[[], Any]) -> None:
        self.pipe = pipe
        self.views = views
        self.size_bytes = 0
        self._held: dict[str, Any] = {}
        self._lengths: dict[str, int] = {}

    def remember(self, size_bytes: int) -> None:
        """Record how it was built, and how many bytes its components take on the device."""
        self.size_bytes = size_bytes
        self._held = dict(vars(self.pipe))
        self._lengths = self._lengths_now()

    def is_of(self, modules: Mapping[str, Any]) -> bool:
        """Whether it is built from these components and nobody has changed it."""
        now = vars(self.pipe)
        return (
            all(now.get(name) is module for name, module in modules.items())
            and now.keys() == self._held.keys()
            and all(now[name] is value for name, value in self._held.items())
            and self._lengths_now() == self._lengths
        )

    def _lengths_now(self) -> dict[str, int]:
        """Sizes of its vocabularies: authors add words to them."""
        return {name: len(part) for name, part in vars(self.pipe).items() if callable(getattr(part, "convert_tokens_to_ids", None))}
