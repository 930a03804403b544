"""A component without its bytes: the module on the meta device, the buffers that are not in files, and which tensor
goes where.

A skeleton is built while the bytes of its first load are on their way. When the component is evicted, its tensors are
taken out of the module and the skeleton stays. The next load only puts tensors back in their places: no module is
built, and no key is compared.

    built (on meta) --put, complete--> loaded --strip--> on meta again --put, complete--> loaded ...
                    --settle---------------------------> on meta again

It may be built and settled before anyone asks for its model. Then the first load is as quick as a later one.

A skeleton is reused only if it is still as it was built. Authors and libraries change modules (hooks, adapters,
compiled layers, tiles), and such a change must not outlive the module that had it.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gen_worker.authoring.building import BUILDING
from gen_worker.authoring.module_state import ModuleState, parts_of
from gen_worker.residency.cut import Cut
from gen_worker.residency.layout import aligned
from gen_worker.residency.loaders.base import import_torch
from gen_worker.residency.loaders.building import Pace, parameters_on_meta
from gen_worker.residency.loaders.library import may_be_missing

MODULE_BYTES = 6000  # host memory of a submodule with its tensors on meta, measured on UNets
Holder = dict[str, Any]  # a module's `_parameters` or `_buffers`


class NotUnderstoodError(Exception):
    """The fast path cannot load this; the library may be able to."""


class Skeleton:
    """A module that receives its tensors by the names they have in files. Used by one thread at a time."""

    def __init__(self, make: Callable[[], Any], pace: Pace, *, cast_buffers: bool) -> None:
        """`cast_buffers`: whether buffers are converted to the precision of the weights."""
        torch = import_torch()
        with parameters_on_meta(torch, pace):
            self.module = make()
        self._torch = torch
        self._pace = pace
        self._cast_buffers = cast_buffers
        self._state: dict[str, Any] = self.module.state_dict(keep_vars=True)
        self._places = _places_of(self.module)
        self._given: dict[str, Any] = {}  # tensors put since the last strip, by name
        self._tensors: list[tuple[Holder, str, str]] = []  # holder, name in it, name in the files; known after the first `complete`
        self._buffers: list[tuple[Holder, str, Any]] = []  # holder, name in it, value in host memory
        self._empty: list[tuple[Holder, str, Any]] = []  # what was in each place before
        self._as_made: ModuleState | None = None
        self._configs: list[tuple[Any, dict[str, Any]]] = []
        self._checked: object = None
        self.cut: Cut | None = None  # of the files that were checked; the loads that it goes through keep it here
        self.may_be_kept = True
        self.device_bytes = 0  # bytes of the complete module on the device
        self._module_bytes = len(parts_of(self.module)) * MODULE_BYTES

    @property
    def names(self) -> Mapping[str, Any]:
        """The module's own names of the tensors in its files, with tensors of those shapes."""
        return self._state

    @property
    def host_bytes(self) -> int:
        """Estimated host memory it takes, in bytes. Called at each eviction, so it does not walk the modules."""
        return self._module_bytes + sum(int(value.nbytes) for _, _, value in self._buffers)

    @property
    def is_new(self) -> bool:
        """Whether it never had tensors, so nobody can have changed it."""
        return self._as_made is None and not self._given

    @property
    def reads_values(self) -> bool:
        """Whether `complete` may look at tensor values: when two might be tied and that is not yet known."""
        return self._as_made is None and callable(getattr(self.module, "tie_weights", None))

    def check(self, files: object, shapes: Callable[[], Mapping[str, tuple[int, ...]]]) -> None:
        """Check that files with these tensors fit; `NotUnderstoodError` when a name or a shape differs. Each set of
        files is checked once.
        """
        if files is self._checked:
            return
        for name, shape in shapes().items():
            expected = self._state.get(name)
            if expected is None:
                if not name.endswith("position_ids"):
                    raise NotUnderstoodError(f"the module has no {name!r}")
            elif tuple(expected.shape) != shape:
                raise NotUnderstoodError(
                    f"{name!r} has the shape {list(shape)} in the files, the configuration expects {list(expected.shape)}"
                )
        self._checked, self.cut = files, None

    def put(self, name: str, tensor: Any) -> None:
        """Give the module a tensor from its files."""
        stands = self._state.get(name)
        if stands is None:
            return
        value = self._torch.nn.Parameter(tensor, requires_grad=False) if isinstance(stands, self._torch.nn.Parameter) else tensor
        self._given[name] = value
        if self._as_made is None:  # the first `complete` finds its place
            for holder, key in self._places[name]:
                holder[key] = value
        self._pace.step()

    def settle(self, dtypes: Mapping[str, Any]) -> None:
        """Do what the first `complete` does, without the files' tensors: their dtypes by name are enough.

        Does nothing when the tensor values would be needed. Raises `NotUnderstoodError` like `complete`.
        """
        if self.reads_values:
            return
        for name, dtype in dtypes.items():
            if name in self._state:
                self.put(name, self._torch.empty_like(self._state[name], dtype=dtype, device="meta"))
        self._complete_first("meta", self._torch.float32)
        self.reset()

    def complete(self, device: str, dtype: Any) -> Any:
        """The module, once all its tensors are there. `NotUnderstoodError` names a tensor missing from the files."""
        if self._as_made is None:
            self._complete_first(device, dtype)
        else:
            self._again(device, dtype)
        return self.module

    def _complete_first(self, device: str, dtype: Any) -> None:
        missing = {name for name in self._state if name not in self._given and not may_be_missing(name)}
        with BUILDING:  # tying sets parameters, and that goes through methods that libraries replace in torch
            _tie(self.module, missing)
        given = {id(tensor): name for name, tensor in self._given.items()}
        # Of tied weights (tied by the library, or in a shared module) the files hold only one.
        lacking = {name for name in missing if any(id(holder.get(key)) not in given for holder, key in self._places[name])}
        if lacking:
            raise NotUnderstoodError(f"the files lack {min(lacking)!r}")
        held: list[tuple[Holder, str]] = []
        for part in parts_of(self.module):
            self._pace.step()
            for holder in (part._parameters, part._buffers):
                for key, tensor in holder.items():
                    if tensor is None:
                        continue
                    name = given.get(id(tensor))
                    held.append((holder, key))
                    if name is not None:
                        self._tensors.append((holder, key, name))
                        self._empty.append((holder, key, self._state[name]))
                    elif tensor.is_meta:
                        raise NotUnderstoodError(f"nothing gives {key!r} of {type(part).__name__} a value")
                    elif holder is part._buffers:
                        self._buffers.append((holder, key, tensor))
                        self._empty.append((holder, key, tensor))
                    else:
                        self.may_be_kept = False  # the library derived something from these tensors
                        tensor.requires_grad_(False)
        self._put_buffers(device, dtype)
        self.module.eval()
        self.device_bytes = sum(aligned(tensor.nbytes) for tensor in {id(holder[key]): holder[key] for holder, key in held}.values())
        if self.may_be_kept:
            self._as_made = ModuleState(self.module, tensors=False)
            self._configs = [(value, dict(vars(value))) for value in vars(self.module).values() if hasattr(value, "to_diff_dict")]

    def _again(self, device: str, dtype: Any) -> None:
        for holder, key, name in self._tensors:
            holder[key] = self._given[name]
        self._put_buffers(device, dtype)

    def _put_buffers(self, device: str, dtype: Any) -> None:
        for holder, key, value in self._buffers:
            cast = self._cast_buffers and value.is_floating_point()
            holder[key] = value.to(device=device, dtype=dtype if cast else value.dtype, copy=True)

    def given(self) -> list[Any]:
        """The tensors it holds now."""
        return list(self._given.values())

    def strip(self) -> bool:
        """Take the tensors out of the module. False when someone put others in their places: then it must not be reused."""
        ours = all(holder.get(key) is self._given.get(name) for holder, key, name in self._tensors)
        return self.reset() and ours

    def reset(self) -> bool:
        """Forget the tensors of a load, even one that failed half way. False when it was never complete."""
        for holder, key, empty in self._empty:
            holder[key] = empty
        self._given = {}
        return self.may_be_kept and self._as_made is not None

    def is_as_made(self) -> bool:
        """Whether nobody has changed the module since it was built. Call it only on a stripped skeleton."""
        return (
            self._as_made is not None and self._as_made.is_as_before() and all(vars(config) == before for config, before in self._configs)
        )


def _places_of(module: Any) -> dict[str, list[tuple[Holder, str]]]:
    """Where each name of `state_dict` is stored; a shared module has several places."""
    found: dict[str, list[tuple[Holder, str]]] = {}
    to_see = [("", module)]
    while to_see:
        prefix, part = to_see.pop()
        for holder in (part._parameters, part._buffers):
            for key in holder:
                found.setdefault(prefix + key, []).append((holder, key))
        to_see += [(f"{prefix}{name}.", child) for name, child in part._modules.items() if child is not None]
    return found


def _tie(module: Any, missing: set[str]) -> None:
    """Tie what the library ties, as its own loading does.

    Since transformers 5, two weights that are both in the files are tied only if they are equal. Older versions always
    follow the configuration.
    """
    tie = getattr(module, "tie_weights", None)
    if not callable(tie):
        return
    if "missing_keys" in inspect.signature(tie).parameters:
        tie(missing_keys=set(missing), recompute_mapping=False)
    else:
        tie()
