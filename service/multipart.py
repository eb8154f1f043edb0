"""Read a multipart/form-data body piece by piece (RFC 7578): the protocol alone, which knows no storage.

A `FormReader` is fed the body as it arrives. A small field is given whole to `on_field`; the one file is given to
`on_file` by its name, and then piece by piece to what `on_file` returned. Nothing is kept but the part headers and
the fields, all of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gigamask.errors import BadUpload

FILE_FIELD = "file"
MAX_PARTS = 16
MAX_FIELD_BYTES = 512 * 1024
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4 * 1024

Sink = Callable[[memoryview], None]


class FormReader:
    """`feed` and `finish` raise BadUpload, and whatever the callbacks raise."""

    def __init__(self, boundary: bytes, on_field: Callable[[str, str], None], on_file: Callable[[str], Sink]) -> None:
        self._on_field, self._on_file = on_field, on_file
        self._headers: dict[bytes, bytes] = {}
        self._header_name, self._header_value = bytearray(), bytearray()
        self._seen: set[str] = set()
        self._field, self._value = "", bytearray()
        self._sink: Sink | None = None
        self.complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_header_name,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open_part,
                    "on_part_data": self._add_content,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_PART_HEADER_BYTES,
            )
        except FormParserError as exc:
            raise BadUpload(f"the multipart boundary is over {len(boundary) - 1} bytes") from exc

    @property
    def in_file(self) -> bool:
        """Whether the piece fed last ended inside the file."""
        return self._sink is not None

    def feed(self, piece: bytes | bytearray) -> None:
        if self.complete:  # RFC 2046, 5.1.1: what follows the closing boundary is to be ignored
            return
        try:
            self._parser.write(bytes(piece) if isinstance(piece, bytearray) else piece)
        except FormParserError as exc:
            raise BadUpload("the multipart body is broken: a boundary or a part header is wrong or too long") from exc

    def finish(self) -> None:
        if not self.complete:
            raise BadUpload("the multipart body ends before its closing boundary")

    def _begin_part(self) -> None:
        self._headers = {}
        if len(self._seen) >= MAX_PARTS:
            raise BadUpload(f"a form has at most {MAX_PARTS} parts")

    def _add_header_name(self, block: bytes, start: int, end: int) -> None:
        self._header_name += block[start:end]

    def _add_header_value(self, block: bytes, start: int, end: int) -> None:
        self._header_value += block[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _open_part(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._field = options.get(b"name", b"").decode(errors="replace")
        if kind != b"form-data" or not self._field:
            raise BadUpload("a part lacks `Content-Disposition: form-data; name=...`")
        if self._field in self._seen:
            raise BadUpload(f"the field {self._field!r} comes twice")
        self._seen.add(self._field)
        if self._field == FILE_FIELD:
            self._sink = self._on_file(self._file_name(options))

    def _file_name(self, options: dict[bytes, bytes]) -> str:
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):  # RFC 7578, 4.7: deprecated, and would be stored undecoded
            raise BadUpload(
                f"the file is sent as binary, not with the transfer encoding {encoding.decode('latin-1')!r}"
            )
        if b"filename" not in options:
            raise BadUpload(f"the field {FILE_FIELD!r} is a file (`-F file=@image.tif`), not text")
        return options[b"filename"].decode(errors="replace")

    def _add_content(self, block: bytes, start: int, end: int) -> None:
        if self._sink:
            self._sink(memoryview(block)[start:end])
            return
        self._value += block[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise BadUpload(f"the field {self._field!r} is longer than {MAX_FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if self._sink:
            self._sink = None
            return
        value = bytes(self._value).decode(errors="replace")
        self._value.clear()
        self._on_field(self._field, value)

    def _end(self) -> None:
        self.complete = True
