"""The environment variables from which child processes get a selection: workers, builds, discovery, container engines.

A root reads them once. The code that starts a child chooses those that the child needs; no code below a root reads the
environment of the process itself.
"""

from collections.abc import Iterator, Mapping


class ChildEnvironment(Mapping[str, str]):
    """Variables by name. Their values may be secret, so its repr does not show them."""

    __slots__ = ("_variables",)

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"ChildEnvironment({len(self)} variables)"
