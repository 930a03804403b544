"""How payloads and outputs are written: JSON over HTTP, msgpack on the wire."""

from typing import Literal

Encoding = Literal["json", "msgpack"]
