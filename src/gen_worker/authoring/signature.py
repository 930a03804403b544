"""Reads a marked function's signature into a `FunctionSpec`, or says what is wrong with it and how to fix it."""

import collections.abc
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import msgspec

from gen_worker.authoring.batch import Batch
from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.functions import Kind, Mark, ResourceRequirements, mark_of
from gen_worker.authoring.suggest import dataclass_like, fix_or, is_plain, plain_fix, struct_fix, struct_text
from gen_worker.authoring.task_names import Task
from gen_worker.authoring.tasks import task_problem
from gen_worker.frames import shown_path
from gen_worker.injection import ModelRef, ModelRefSource
from gen_worker.names import did_you_mean, slugify

OutputMode = Literal["single", "incremental"]
_SYNC_STREAMS = (collections.abc.Iterator, collections.abc.Iterable)
_ASYNC_STREAMS = (collections.abc.AsyncIterator,)
_SHAPE = "def {name}(ctx: ActionContext, payload: Input) -> Output"


class SignatureError(ValueError):
    """A marked function cannot be served: where it is, what is wrong, and what to write instead."""

    def __init__(self, function: Callable[..., Any], problem: str, fix: str) -> None:
        self.problem = problem
        self.fix = fix
        self.where = location_of(function)
        super().__init__(f"{self.where}: function '{getattr(function, '__name__', function)}': {problem}\n  fix: {fix}")


class Injection(msgspec.Struct, frozen=True):
    """A parameter that receives a model."""

    param: str
    type: Any
    model_ref: ModelRef


class FunctionSpec(msgspec.Struct, frozen=True):
    """Everything the worker knows about one function. A websocket handler has its socket in place of a payload."""

    name: str
    python_name: str
    module: str
    function: Callable[..., Any]
    kind: Kind
    resources: ResourceRequirements
    payload_param: str
    payload_type: type[msgspec.Struct]
    output_type: type[msgspec.Struct]
    output_mode: OutputMode
    is_async: bool
    injections: tuple[Injection, ...]
    timeout_ms: int = 0  # for a run whose caller sets no limit; 0: none
    batch: Batch | None = None
    task: Task | None = None

    @property
    def selecting_fields(self) -> tuple[str, ...]:
        """Payload fields by which the caller chooses models, by their Python names."""
        return tuple(dict.fromkeys(i.model_ref.key for i in self.injections if i.model_ref.source is ModelRefSource.PAYLOAD))

    @property
    def required_keys(self) -> tuple[str, ...]:
        """FIXED keys in parameter order."""
        return tuple(i.model_ref.key for i in self.injections if i.model_ref.source is ModelRefSource.FIXED)


class _NoPayload(msgspec.Struct):
    """Stands for the payload and output of a websocket handler, which has neither."""


def location_of(function: Callable[..., Any]) -> str:
    """`file:line` of a function's `def`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{shown_path(code.co_filename)}:{code.co_firstlineno}" if code else getattr(function, "__module__", "?")


def read_signature(function: Callable[..., Any], module: str | None = None) -> FunctionSpec:
    """The spec of a marked function; `SignatureError` when it breaks a rule."""
    mark = mark_of(function)
    if mark is None:
        raise ValueError(f"{function!r} is not marked; decorate it with @worker_function()")
    try:
        name = slugify(function.__name__)
    except ValueError as exc:
        raise SignatureError(function, str(exc), "rename the function") from None
    hints = _hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    _check_context(function, parameters, hints)
    _check_kinds(function, parameters)
    if mark.kind == "websocket":
        return _websocket_spec(function, mark, name, module, parameters, hints)
    if mark.batch is not None:
        hints = _item_hints(function, parameters, hints)
    payloads, injections = _sort_parameters(function, parameters[1:], hints)
    if len(payloads) != 1:
        problem = "missing payload param" if not payloads else f"must accept exactly one payload, found {', '.join(payloads)}"
        raise SignatureError(function, problem, f"take one msgspec.Struct: {_SHAPE.format(name=function.__name__)}")
    payload_type = hints[payloads[0]]
    _check_selectors(function, payload_type, injections)
    mode, output_type, streams_async = _output(function, hints)
    if mark.task is not None:
        unfit = task_problem(mark.task, payload_type, output_type, incremental=mode == "incremental")
        if unfit is not None:
            raise SignatureError(function, *unfit)
    return FunctionSpec(
        name=name,
        python_name=function.__name__,
        module=module or function.__module__,
        function=function,
        kind=mark.kind,
        resources=mark.resources,
        payload_param=payloads[0],
        payload_type=payload_type,
        output_type=output_type,
        output_mode=mode,
        is_async=streams_async or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function),
        injections=injections,
        batch=mark.batch,
        task=mark.task,
    )


def _item_hints(function: Callable[..., Any], parameters: list[inspect.Parameter], hints: dict[str, Any]) -> dict[str, Any]:
    """The type hints of a batch function with `list[Struct]` replaced by `Struct`, so that the other rules apply unchanged."""
    shape = f"def {function.__name__}(ctx: ActionContext, payloads: list[Input]) -> list[Output]"
    found = dict(hints)
    lists = [p.name for p in parameters[1:] if get_origin(hints.get(p.name)) is list and _is_struct(get_args(hints[p.name])[0])]
    if len(lists) != 1:
        plain = [p.name for p in parameters[1:] if _is_struct(hints.get(p.name))]
        problem = (
            f"'{plain[0]}' is one payload, but a batch function takes a list of them"
            if plain
            else "a batch function takes one list[Struct]"
        )
        raise SignatureError(function, problem, f"write {shape}")
    found[lists[0]] = get_args(hints[lists[0]])[0]
    output = hints.get("return")
    items = get_args(output)[0] if get_origin(output) is list else None
    structs = [kind for kind in (get_args(items) or (items,)) if _is_struct(kind)]
    others = [kind for kind in get_args(items) if not _is_struct(kind) and not (isinstance(kind, type) and issubclass(kind, BaseException))]
    if len(structs) != 1 or others:
        raise SignatureError(function, f"a batch function returns a list of one Struct type, not {_shown(output)}", f"write {shape}")
    found["return"] = structs[0]
    return found


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, SyntaxError, AttributeError) as exc:
        raise SignatureError(
            function, f"an annotation cannot be read: {exc}", "import the name at the top of the module, outside `if TYPE_CHECKING:`"
        ) from exc


def _check_context(function: Callable[..., Any], parameters: list[inspect.Parameter], hints: dict[str, Any]) -> None:
    shape = _SHAPE.format(name=function.__name__)
    if len(parameters) < 2:
        raise SignatureError(function, "must accept (ctx, payload, ...)", f"write {shape}")
    first = parameters[0].name
    if hints.get(first) is not ActionContext:
        shown = _shown(hints[first]) if first in hints else "no annotation"
        raise SignatureError(function, f"first param must be ctx: ActionContext, but '{first}' has {shown}", f"write {shape}")


def _check_kinds(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
    for parameter in parameters[1:]:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY):
            raise SignatureError(
                function,
                f"unsupported param '{parameter}'",
                "name each parameter; *args, **kwargs and positional-only ones are not supported",
            )


def _sort_parameters(
    function: Callable[..., Any], parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> tuple[list[str], tuple[Injection, ...]]:
    payloads: list[str] = []
    injections: list[Injection] = []
    for parameter in parameters:
        hint = hints.get(parameter.name)
        if hint is None:
            raise SignatureError(
                function,
                f"missing type annotation for param '{parameter.name}'",
                f"write {_SHAPE.format(name=function.__name__)}, with\n{struct_text('Input', [('prompt', 'str')])}\n"
                '  A model is Annotated[T, ModelRef(ModelRefSource.FIXED, "key")]',
            )
        if _is_struct(hint):
            payloads.append(parameter.name)
        elif get_origin(hint) is Annotated and any(isinstance(extra, ModelRef) for extra in get_args(hint)):
            injections.append(_injection(function, parameter.name, hint))
        else:
            _refuse_payload(function, parameter, parameters, hints)
    return payloads, tuple(injections)


def _refuse_payload(
    function: Callable[..., Any], parameter: inspect.Parameter, parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> NoReturn:
    """Refuse a parameter that is neither a Struct nor a model: it must have been meant as the payload or a part of it."""
    hint = hints[parameter.name]
    problem = f"unsupported param type for '{parameter.name}': {_shown(hint)}"
    structs = [hints[each.name].__name__ for each in parameters if _is_struct(hints.get(each.name))]
    plain = [each for each in parameters if is_plain(hints.get(each.name))]
    if structs:
        fix = f"add it to {structs[0]} as a field"
    elif len(plain) > 1:
        fix = plain_fix(plain, hints)
    elif is_plain(hint) and parameter.name != "payload" and hint is not dict:
        fix = struct_fix(hint, "Input", parameter.name)
    else:
        fix = struct_fix(hint, "Input", "prompt")
    example = 'A model is Annotated[T, ModelRef(ModelRefSource.FIXED, "key")]'
    raise SignatureError(function, problem, fix if plain or dataclass_like(hint) else f"{fix}\n  {example}")


def _injection(function: Callable[..., Any], param: str, hint: Any) -> Injection:
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        refs = [extra for extra in extras if isinstance(extra, ModelRef)]
        if len(refs) == 1:
            _check_key(function, param, refs[0])
            return Injection(param, inner, refs[0])
    raise SignatureError(
        function,
        f"unsupported param type for '{param}': {_shown(hint)}",
        'inject models with Annotated[T, ModelRef(ModelRefSource.FIXED, "key")]; put everything else into the payload Struct',
    )


def _check_key(function: Callable[..., Any], param: str, ref: ModelRef) -> None:
    if not ref.key or not isinstance(ref.key, str):
        raise SignatureError(function, f"ModelRef of '{param}' has no key", "name a key of [models] in cozy.toml, or a payload field")
    if ref.source is ModelRefSource.FIXED and ("/" in ref.key or ":" in ref.key):
        raise SignatureError(
            function,
            f"ModelRef of '{param}' has the ref {ref.key!r}; expected a key",
            f'declare it in cozy.toml ([models] my_key = "{ref.key}") and write ModelRef(ModelRefSource.FIXED, "my_key")',
        )


def _check_selectors(function: Callable[..., Any], payload: type[msgspec.Struct], injections: tuple[Injection, ...]) -> None:
    for injection in injections:
        field = injection.model_ref.key
        if injection.model_ref.source is ModelRefSource.PAYLOAD and field not in payload.__struct_fields__:
            raise SignatureError(
                function,
                f"'{injection.param}' is selected by the payload field {field!r}, which {payload.__name__} does not have."
                + did_you_mean(field, payload.__struct_fields__),
                f"add `{field}: str` to {payload.__name__}",
            )


def _output(function: Callable[..., Any], hints: dict[str, Any]) -> tuple[OutputMode, type[msgspec.Struct], bool]:
    example = "return a msgspec.Struct, or Iterator[Struct] / AsyncIterator[Struct] to stream"
    if "return" not in hints:
        raise SignatureError(function, "missing return type annotation", example)
    hint = hints["return"]
    if _is_struct(hint):
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise SignatureError(function, f"yields, but its return type is {_shown(hint)}", f"write -> Iterator[{hint.__name__}]")
        return "single", hint, False
    origin = get_origin(hint)
    if origin not in (*_SYNC_STREAMS, *_ASYNC_STREAMS):
        fix = fix_or(hint, "Output", "text", example)
        raise SignatureError(function, f"return type must be a Struct or a stream of Structs, not {_shown(hint)}", fix)
    items = get_args(hint)
    if len(items) != 1 or not _is_struct(items[0]):
        fix = fix_or(items[0] if len(items) == 1 else None, "Delta", "chunk", example)
        raise SignatureError(function, f"incremental output return must be a stream of one Struct type, not {_shown(hint)}", fix)
    if origin in _SYNC_STREAMS and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        raise SignatureError(function, f"is async, but its return type is {_shown(hint)}", f"write -> AsyncIterator[{items[0].__name__}]")
    if origin in _ASYNC_STREAMS and inspect.isgeneratorfunction(function):
        raise SignatureError(
            function, f"is a plain generator, but its return type is {_shown(hint)}", f"write -> Iterator[{items[0].__name__}]"
        )
    return "incremental", items[0], origin in _ASYNC_STREAMS


def _websocket_spec(
    function: Callable[..., Any], mark: Mark, name: str, module: str | None, parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> FunctionSpec:
    if not inspect.iscoroutinefunction(function):
        raise SignatureError(function, "a websocket handler must be async", f"write async def {function.__name__}(ctx, socket)")
    injections = tuple(_injection(function, p.name, hints.get(p.name)) for p in parameters[2:])
    for injection in injections:
        if injection.model_ref.source is ModelRefSource.PAYLOAD:
            raise SignatureError(
                function, f"'{injection.param}' is selected by the payload, but a websocket has none", "use ModelRefSource.FIXED"
            )
    return FunctionSpec(
        name, function.__name__, module or function.__module__, function, mark.kind, mark.resources,
        parameters[1].name, _NoPayload, _NoPayload, "incremental", True, injections,
    )  # fmt: skip


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("collections.abc.", "")
