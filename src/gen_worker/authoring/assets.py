"""Files as values: an `Asset` in a payload is a file on disk when the function runs; in an output it refers to a saved file."""

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

_LOCAL_PATH = 2  # position of `local_path` among the arguments of `Asset`


class _AssetType(msgspec.StructMeta):
    """Makes `local_path` an argument of the class but not a field of the Struct.

    msgspec only decodes fields, and creates objects without calling the class. So no payload, whatever its form and
    wherever the asset is in it, can choose which local file a function opens. A subclass that declares the name as a
    field is refused.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> Any:
        kind = super().__new__(mcs, name, bases, namespace, **config)
        if "local_path" in kind.__struct_fields__:
            raise TypeError(f"{name}.local_path: a field of this name would be read from callers' payloads; leave it out, Asset has one")
        return kind

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        local_path = kwargs.pop("local_path", None)
        if len(args) > _LOCAL_PATH:
            local_path, args = args[_LOCAL_PATH], (*args[:_LOCAL_PATH], *args[_LOCAL_PATH + 1 :])
        asset = super().__call__(*args, **kwargs)
        asset.__dict__["local_path"] = local_path
        return asset


class Asset(msgspec.Struct, metaclass=_AssetType, omit_defaults=True, dict=True):
    """A file by reference.

    `ref`: a logical path (`runs/<run_id>/outputs/x.png`), an http(s) URL or, in the dev runner, a data URI.
    `local_path`: the file on this machine. The worker sets it before the function runs; it is never read from a payload
    or written into an output. The worker also sets `owner` (whose run it is), `size_bytes` and `sha256` (hex) of an
    input, and ignores what the caller says about them. `mime_type` is detected from the content; if that fails, it is
    the caller's value.
    """

    ref: str
    owner: str | None = None
    if TYPE_CHECKING:
        local_path: str | None = None
    mime_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None

    if not TYPE_CHECKING:

        @property
        def local_path(self) -> str | None:
            return self.__dict__.get("local_path")

        @local_path.setter
        def local_path(self, path: str | None) -> None:
            self.__dict__["local_path"] = path

    def __fspath__(self) -> str:
        if self.local_path is None:
            raise ValueError(f"asset {self.ref[:200]!r} is not on this disk; inputs are fetched before a function runs, outputs are not")
        return self.local_path

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__} | {"local_path": self.local_path}
        return f"{type(self).__name__}({', '.join(f'{name}={reprlib.repr(value)}' for name, value in shown.items() if value is not None)})"

    def __copy__(self) -> "Asset":
        return _rebuild(type(self), msgspec.structs.asdict(self), self.local_path)

    def __replace__(self, /, **changes: Any) -> "Asset":
        local_path = changes.pop("local_path", self.local_path)
        return _rebuild(type(self), msgspec.structs.asdict(self) | changes, local_path)

    def __reduce__(self) -> tuple[Any, ...]:  # so that the file is still known after pickling into a process pool
        return _rebuild, (type(self), msgspec.structs.asdict(self), self.local_path)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file; binary modes only."""
        if "b" not in mode:
            raise ValueError(f"mode {mode!r}; assets are opened in binary modes such as 'rb'")
        return cast(BinaryIO, Path(self).open(mode))

    def exists(self) -> bool:
        """Whether the file is on this disk."""
        return self.local_path is not None and Path(self.local_path).exists()

    def read_bytes(self, max_bytes: int | None = None) -> bytes:
        """The whole content; `ValueError` when it is larger than `max_bytes`."""
        with self.open() as file:
            data = file.read() if max_bytes is None else file.read(max_bytes + 1)
        if max_bytes is not None and len(data) > max_bytes:
            raise ValueError(f"asset {self.ref[:200]!r} is larger than the {max_bytes} bytes allowed here")
        return data


def _rebuild(kind: type[Asset], fields: dict[str, Any], local_path: str | None) -> Asset:
    asset = kind(**fields)
    asset.__dict__["local_path"] = local_path
    return asset


def fill_asset(asset: Asset, **facts: Any) -> None:
    """Set what the worker knows about a file, even when an author's subclass is frozen."""
    for name, value in facts.items():
        msgspec.structs.force_setattr(asset, name, value)
