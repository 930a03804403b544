"""Encodings of payloads and outputs: JSON over HTTP, msgpack on the wire."""

from typing import Literal

Encoding = Literal["json", "msgpack"]
