"""The file API between workers and a file store: `PUT`, `POST` (create only), `GET` and `HEAD` of `/api/v1/file/<ref>`.

A saved file is answered with a `SavedFile`; a `HEAD` returns the same in headers.
"""

import msgspec

FILE_ROUTE = "/api/v1/file/"
OWNER_HEADER = "x-cozy-owner"
SIZE_HEADER = "x-cozy-size-bytes"
SHA256_HEADER = "x-cozy-sha256"
TYPE_HEADER = "x-cozy-mime-type"


class SavedFile(msgspec.Struct, frozen=True):
    """Facts about a file. All are optional, because older servers return fewer. `sha256`: 64 hexadecimal digits."""

    ref: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    mime_type: str | None = None
