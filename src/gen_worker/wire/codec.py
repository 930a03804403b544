"""Converts messages to protobuf and back. The only importer of the worker protocol's stubs.

Structs and protobuf messages mirror each other; differing names are in the tables here. An absent field has its zero
value on the wire, so the Structs' defaults are zero values too.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from gen_worker.pb import worker_scheduler_pb2 as pb
from gen_worker.wire import messages as m

_ONEOF: Mapping[type[msgspec.Struct], str] = {
    m.Registration: "worker_registration",
    m.RunResult: "run_result",
    m.LoadModelResult: "load_model_result",
    m.UnloadModelResult: "unload_model_result",
    m.Event: "worker_event",
    m.UrlRefreshRequest: "cozy_model_url_refresh_request",
    m.RunCommand: "run_request",
    m.LoadModel: "load_model_cmd",
    m.UnloadModel: "unload_model_cmd",
    m.InterruptRun: "interrupt_run_cmd",
    m.ReleaseConfig: "release_artifact_config",
    m.OpenRealtime: "realtime_open_cmd",
    m.RealtimeFrame: "realtime_frame",
    m.CloseRealtime: "realtime_close_cmd",
    m.UrlRefreshResponse: "cozy_model_url_refresh_response",
    m.Hello: "hello",
    m.Ack: "ack",
    m.RealtimeCredit: "realtime_credit",
}
_RENAMED: Mapping[tuple[type[msgspec.Struct], str], str] = {
    (m.RunResult, "output"): "output_payload",
    (m.Event, "payload"): "payload_json",
    (m.RunCommand, "function"): "function_name",
    (m.RunCommand, "payload"): "input_payload",
    (m.RunCommand, "required_models"): "required_variant_refs",
    (m.RunCommand, "resolved_models"): "resolved_cozy_models_by_id",
    (m.ReleaseConfig, "supported_refs"): "supported_repo_refs",
    (m.ReleaseConfig, "ref_by_key"): "repo_ref_by_key",
    (m.ReleaseConfig, "resolved_models"): "resolved_cozy_models_by_variant_ref",
    (m.ReleaseConfig, "required_refs"): "required_variant_refs",
    (m.OpenRealtime, "function"): "function_name",
    (m.OpenRealtime, "required_models"): "required_variant_refs",
}
_UNKNOWN = m.Unknown()
# Numbers in these messages are measurements, some reported by an author's objects. A number that does not fit its field
# is sent as the nearest one that does.
_MEASURED: Mapping[type[msgspec.Struct], Any] = {m.Resources: pb.WorkerResources, m.ModelTier: pb.ModelTier}
_NUMBERS = (int, Mapping[str, int])
_INT64_MAX, _INT32_MAX = 2**63 - 1, 2**31 - 1

Read = Callable[[Any], Any]
Write = Callable[[Any, Any], None]


class CodecError(ValueError):
    """Bytes that are not a message of this protocol, or a message that cannot be encoded."""


def encode(message: m.Message) -> bytes:
    """A message as bytes; `CodecError` for numbers that do not fit. Lone surrogates in text, which protobuf refuses, are replaced."""
    try:
        return _encode(message)
    except UnicodeError:
        return _encode(_without_surrogates(message))


def encode_sendable(message: m.Message, on_replaced: Callable[[m.Single, CodecError], None]) -> bytes:
    """A message as bytes, whatever it contains: in a batch, a message that the protocol cannot carry is replaced, and
    the others are kept.

    `ctx.emit` and the executor refuse such values at their source. Values that still get here must not end the stream
    and with it the worker.
    """
    try:
        return encode(message)
    except CodecError:
        if not isinstance(message, m.Batch):
            return encode(_sendable(message, on_replaced))
        return encode(m.Batch(tuple([_sendable(single, on_replaced) for single in message.messages]), message.first_seq, message.ack_seq))


def _sendable(message: m.Single, on_replaced: Callable[[m.Single, CodecError], None]) -> m.Single:
    try:
        encode(message)
    except CodecError as exc:
        on_replaced(message, exc)
        if isinstance(message, m.RunResult):
            return m.RunResult(
                str(message.run_id),
                False,
                b"",
                "the result cannot be encoded for the wire",
                "internal",
                False,
                "internal error",
                attempt=message.attempt,
            )
        return m.Unknown()  # takes its number in the batch, so that nothing after it is lost
    return message


def _encode(message: m.Message) -> bytes:
    root = pb.WorkerSchedulerMessage()
    try:
        if isinstance(message, m.Batch):
            batch = root.batch
            batch.first_seq = message.first_seq
            batch.ack_seq = message.ack_seq
            add = batch.messages.add
            for single in message.messages:
                _put(add(), single)
        else:
            _put(root, message)
        data: bytes = root.SerializeToString()
    except UnicodeError:
        raise
    except (ValueError, TypeError) as exc:
        raise CodecError(f"{type(message).__name__} cannot be sent: {exc}") from exc
    return data


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, tuple):
        return tuple([_without_surrogates(item) for item in value])
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, msgspec.Struct):
        return type(value)(*[_without_surrogates(getattr(value, name)) for name in value.__struct_fields__])
    return value


def decode(data: bytes) -> m.Message:
    """Decode a message; `Unknown` for one that this version does not know. `CodecError` when the bytes are not a message."""
    try:
        root = pb.WorkerSchedulerMessage.FromString(data)
        if root.WhichOneof("msg") != "batch":
            return _get(root)
        batch = root.batch
        return m.Batch(tuple([_get(single) for single in batch.messages]), batch.first_seq, batch.ack_seq)
    except (DecodeError, UnicodeDecodeError) as exc:
        raise CodecError(f"{len(data)} bytes are not a message of the worker protocol: {exc}") from None


def _put(target: Any, message: m.Single) -> None:
    if type(message) is m.Event:  # the most frequent case by far
        event = target.worker_event
        event.run_id = message.run_id  # an assignment selects the oneof even when the value is empty
        event.event_type = message.event_type
        event.payload_json = message.payload
        if message.attempt:
            event.attempt = message.attempt
        return
    name = _ONEOF.get(type(message))
    if name is None:  # Unknown: an empty message
        return
    inner = getattr(target, name)
    inner.SetInParent()
    _write_struct(inner, message)


def _get(source: Any) -> m.Single:
    name = source.WhichOneof("msg")
    if name == "worker_event":
        event = source.worker_event
        return m.Event(event.run_id, event.event_type, event.payload_json, event.attempt)
    found = _BY_ONEOF.get(name)
    if found is None:
        return _UNKNOWN
    message: m.Single = _read_struct(found, getattr(source, name))
    return message


def _write_struct(target: Any, value: msgspec.Struct) -> None:
    for name, write in _WRITERS[type(value)]:
        item = getattr(value, name)
        if item:
            write(target, item)


def _read_struct(kind: type[msgspec.Struct], source: Any) -> Any:
    return kind(*[read(getattr(source, name)) if read else getattr(source, name) for name, read in _READERS[kind]])


def _clipped(kind: type[msgspec.Struct], name: str) -> Write:
    """A function that writes a measured number, or a map of them, clipped to the range of its field."""
    field = _MEASURED[kind].DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None:
        field = field.message_type.fields_by_name["value"]
        limit = _INT32_MAX if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else _INT64_MAX
        return lambda target, values: getattr(target, name).update(
            {key: max(-limit - 1, min(value, limit)) for key, value in values.items()}
        )
    limit = _INT32_MAX if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else _INT64_MAX
    return lambda target, value: setattr(target, name, max(-limit - 1, min(value, limit)))


def _writer(annotation: Any, name: str) -> Write:
    if _is_struct(annotation):
        return lambda target, value: _write_nested(getattr(target, name), value)
    origin = get_origin(annotation)
    if origin is None:
        return lambda target, value: setattr(target, name, value)
    item = get_args(annotation)[-1] if origin is not tuple else get_args(annotation)[0]
    if not _is_struct(item):
        if origin is tuple:
            return lambda target, values: getattr(target, name).extend(values)
        return lambda target, values: getattr(target, name).update(values)

    def write_list(target: Any, values: Any) -> None:
        for value in values:
            _write_struct(getattr(target, name).add(), value)

    def write_map(target: Any, values: Any) -> None:
        for key, value in values.items():
            _write_nested(getattr(target, name)[key], value)

    return write_list if origin is tuple else write_map


def _write_nested(target: Any, value: msgspec.Struct) -> None:
    target.SetInParent()
    _write_struct(target, value)


def _reader(annotation: Any) -> Read | None:
    if _is_struct(annotation):
        return lambda source: _read_struct(annotation, source)
    origin = get_origin(annotation)
    if origin is tuple:
        item = get_args(annotation)[0]
        if _is_struct(item):
            return lambda source: tuple([_read_struct(item, value) for value in source]) if source else ()
        return lambda source: tuple(source) if source else ()
    if origin is not None:
        item = get_args(annotation)[1]
        if _is_struct(item):
            return lambda source: {key: _read_struct(item, source[key]) for key in source} if source else {}
        return lambda source: dict(source) if source else {}
    return None


def _is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def _tables() -> tuple[dict[type[Any], list[tuple[str, Write]]], dict[type[Any], list[tuple[str, Read | None]]]]:
    writers: dict[type[Any], list[tuple[str, Write]]] = {}
    readers: dict[type[Any], list[tuple[str, Read | None]]] = {}
    for kind in vars(m).values():
        if not _is_struct(kind) or kind in (m.Batch, m.Unknown):
            continue
        hints = get_type_hints(kind)
        names = {name: _RENAMED.get((kind, name), name) for name in kind.__struct_fields__}
        writers[kind] = [
            (name, _clipped(kind, wire_name) if kind in _MEASURED and hints[name] in _NUMBERS else _writer(hints[name], wire_name))
            for name, wire_name in names.items()
        ]
        readers[kind] = [(wire_name, _reader(hints[name])) for name, wire_name in names.items()]
    return writers, readers


_BY_ONEOF: Mapping[str | None, type[msgspec.Struct]] = {name: kind for kind, name in _ONEOF.items()}
_WRITERS, _READERS = _tables()
