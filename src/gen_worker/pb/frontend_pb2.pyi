from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActionOptions(_message.Message):
    __slots__ = ("id", "timeout_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    timeout_ms: int
    def __init__(self, id: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class VariantPreferences(_message.Message):
    __slots__ = ("quant", "packaging", "layout")
    class Quantization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        QUANT_UNSPECIFIED: _ClassVar[VariantPreferences.Quantization]
        FP16: _ClassVar[VariantPreferences.Quantization]
        BF16: _ClassVar[VariantPreferences.Quantization]
        FP8: _ClassVar[VariantPreferences.Quantization]
    QUANT_UNSPECIFIED: VariantPreferences.Quantization
    FP16: VariantPreferences.Quantization
    BF16: VariantPreferences.Quantization
    FP8: VariantPreferences.Quantization
    class Packaging(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PACKAGING_UNSPECIFIED: _ClassVar[VariantPreferences.Packaging]
        SAFETENSORS: _ClassVar[VariantPreferences.Packaging]
        FLASHPACK: _ClassVar[VariantPreferences.Packaging]
    PACKAGING_UNSPECIFIED: VariantPreferences.Packaging
    SAFETENSORS: VariantPreferences.Packaging
    FLASHPACK: VariantPreferences.Packaging
    class Layout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LAYOUT_UNSPECIFIED: _ClassVar[VariantPreferences.Layout]
        DIFFUSERS: _ClassVar[VariantPreferences.Layout]
    LAYOUT_UNSPECIFIED: VariantPreferences.Layout
    DIFFUSERS: VariantPreferences.Layout
    QUANT_FIELD_NUMBER: _ClassVar[int]
    PACKAGING_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    quant: VariantPreferences.Quantization
    packaging: VariantPreferences.Packaging
    layout: VariantPreferences.Layout
    def __init__(self, quant: _Optional[_Union[VariantPreferences.Quantization, str]] = ..., packaging: _Optional[_Union[VariantPreferences.Packaging, str]] = ..., layout: _Optional[_Union[VariantPreferences.Layout, str]] = ...) -> None: ...

class ExecuteActionRequest(_message.Message):
    __slots__ = ("function_name", "input_payload", "options", "release_id", "invoker_id", "required_repo_refs", "owner", "variant_prefs")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    INVOKER_ID_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_REPO_REFS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    VARIANT_PREFS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    input_payload: bytes
    options: ActionOptions
    release_id: str
    invoker_id: str
    required_repo_refs: _containers.RepeatedScalarFieldContainer[str]
    owner: str
    variant_prefs: VariantPreferences
    def __init__(self, function_name: _Optional[str] = ..., input_payload: _Optional[bytes] = ..., options: _Optional[_Union[ActionOptions, _Mapping]] = ..., release_id: _Optional[str] = ..., invoker_id: _Optional[str] = ..., required_repo_refs: _Optional[_Iterable[str]] = ..., owner: _Optional[str] = ..., variant_prefs: _Optional[_Union[VariantPreferences, _Mapping]] = ...) -> None: ...

class ExecuteActionResponse(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class CancelRunResponse(_message.Message):
    __slots__ = ("ok",)
    OK_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    def __init__(self, ok: bool = ...) -> None: ...

class RealtimeOpen(_message.Message):
    __slots__ = ("session_id", "release_id", "function_name", "owner", "invoker_id", "timeout_ms")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    INVOKER_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    release_id: str
    function_name: str
    owner: str
    invoker_id: str
    timeout_ms: int
    def __init__(self, session_id: _Optional[str] = ..., release_id: _Optional[str] = ..., function_name: _Optional[str] = ..., owner: _Optional[str] = ..., invoker_id: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class RealtimeFrame(_message.Message):
    __slots__ = ("session_id", "data", "is_text")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_TEXT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    data: bytes
    is_text: bool
    def __init__(self, session_id: _Optional[str] = ..., data: _Optional[bytes] = ..., is_text: bool = ...) -> None: ...

class RealtimeClose(_message.Message):
    __slots__ = ("session_id", "reason")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    reason: str
    def __init__(self, session_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RealtimeProxyMessage(_message.Message):
    __slots__ = ("open", "frame", "close")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    open: RealtimeOpen
    frame: RealtimeFrame
    close: RealtimeClose
    def __init__(self, open: _Optional[_Union[RealtimeOpen, _Mapping]] = ..., frame: _Optional[_Union[RealtimeFrame, _Mapping]] = ..., close: _Optional[_Union[RealtimeClose, _Mapping]] = ...) -> None: ...
