"""HTTP/1.1 requests from bytes: pure, for split and pipelined input alike.

A request with a length in doubt (two different lengths, a length beside chunks, bare line feeds in
the head) is refused, because guessing would let one request hide in another.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024
"""An archive of 16 MiB in base64 inside JSON, with room to spare."""


@dataclass(frozen=True, slots=True)
class Request:
    """One complete request."""

    method: bytes
    target: bytes
    body: bytes
    keep_alive: bool


class BadRequestError(Exception):
    """The input is not a request that can be answered and passed over; the connection must be
    closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestParser:
    """Takes bytes in any pieces, gives requests."""

    __slots__ = ("_buffer", "_chunks", "_head", "_length", "_scanned", "expects_continue")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._head: tuple[bytes, bytes, bool] | None = None
        self._length = 0
        self._chunks: bytearray | None = None
        self.expects_continue = False
        """The client waits for "100 Continue" before it sends the body; cleared by whoever says
        so."""

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Takes the next bytes."""
        self._buffer += data

    def next(self) -> Request | None:
        """The next complete request, or None until more is fed. BadRequestError ends the
        connection."""
        if self._head is None and not self._take_head():
            return None
        if self._chunks is not None:
            if not self._take_chunks():
                return None
            body = bytes(self._chunks)
            self._chunks = None
        else:
            if len(self._buffer) < self._length:
                return None
            body = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
        assert self._head is not None
        method, target, keep_alive = self._head
        self._head = None
        self.expects_continue = False
        return Request(method, target, body, keep_alive)

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0 or end > HEAD_BYTES_MAX:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise BadRequestError(431, f"a request's head may have {HEAD_BYTES_MAX} bytes")
            self._scanned = len(self._buffer)
            return False
        line, *fields = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self._scanned = 0
        try:
            method, target, version = line.split(b" ")
        except ValueError:
            raise BadRequestError(400, "not an HTTP request") from None
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise BadRequestError(505, "only HTTP/1.1 is spoken here")
        keep_alive = version == b"HTTP/1.1"
        length = None
        chunked = False
        for each in fields:
            name, colon, value = each.partition(b":")
            if not colon or not name or name != name.strip() or b"\n" in each or b"\r" in each:
                raise BadRequestError(400, "malformed header field")
            name, value = name.lower(), value.strip()
            if name == b"content-length":
                if not value.isdigit() or length not in (None, value):
                    raise BadRequestError(400, "malformed Content-Length")
                length = value
            elif name == b"transfer-encoding":
                if chunked or value.lower() != b"chunked":
                    raise BadRequestError(501, "only the chunked transfer encoding is known")
                chunked = True
            elif name == b"connection":
                options = [option.strip() for option in value.lower().split(b",")]
                keep_alive = b"close" not in options and (keep_alive or b"keep-alive" in options)
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise BadRequestError(417, "unknown expectation")
                self.expects_continue = True
        if chunked and (length is not None or version == b"HTTP/1.0"):
            raise BadRequestError(400, "chunked, and with a length")
        if length is not None and (len(length) > 12 or int(length) > BODY_BYTES_MAX):
            raise BadRequestError(413, f"a body may have {BODY_BYTES_MAX} bytes")
        self._length = int(length or 0)
        self._chunks = bytearray() if chunked else None
        self._head = method, target, keep_alive
        return True

    def _take_chunks(self) -> bool:
        """Takes whole chunks; True after the last one and its trailer."""
        assert self._chunks is not None
        while True:
            end = self._buffer.find(b"\r\n", 0, 1024)
            if end < 0:
                if len(self._buffer) >= 1024:
                    raise BadRequestError(400, "malformed chunk")
                return False
            digits = bytes(self._buffer[:end]).partition(b";")[0].strip(b" \t")
            if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
                raise BadRequestError(400, "malformed chunk size")
            size = int(digits, 16)
            if len(self._chunks) + size > BODY_BYTES_MAX:
                raise BadRequestError(413, f"a body may have {BODY_BYTES_MAX} bytes")
            if size == 0:
                return self._take_trailer(end)
            if len(self._buffer) < end + 2 + size + 2:
                return False
            if self._buffer[end + 2 + size : end + 4 + size] != b"\r\n":
                raise BadRequestError(400, "malformed chunk")
            self._chunks += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[: end + 4 + size]

    def _take_trailer(self, end: int) -> bool:
        """Passes over the fields after the last chunk, whose size line ends at `end`."""
        if self._buffer[end : end + 4] == b"\r\n\r\n":
            stop = end + 4
        else:
            found = self._buffer.find(b"\r\n\r\n", end)
            if found < 0:
                if len(self._buffer) > HEAD_BYTES_MAX:
                    raise BadRequestError(431, "trailer too long")
                return False
            stop = found + 4
        del self._buffer[:stop]
        return True
