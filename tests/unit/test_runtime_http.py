from __future__ import annotations

import pytest

from slotway.runtime import http
from slotway.runtime.http import BadRequestError, Request, RequestParser

PLAIN = b"POST /run HTTP/1.1\r\nHost: c\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = (
    b"POST /run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;note=x\r\nbod\r\n1\r\ny\r\n0\r\n\r\n"
)
TRAILED = CHUNKED[:-2] + b"Checksum: 1\r\n\r\n"
RUN = Request(b"POST", b"/run", b"body", True)


def parse(*pieces: bytes) -> list[Request]:
    parser = RequestParser()
    requests = []
    for piece in pieces:
        parser.feed(piece)
        while (request := parser.next()) is not None:
            requests.append(request)
    return requests


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED, TRAILED], ids=["plain", "chunked", "trailer"])
def test_a_request_in_any_two_pieces(raw: bytes) -> None:
    for cut in range(len(raw) + 1):
        assert parse(raw[:cut], raw[cut:]) == [RUN], cut


def test_byte_by_byte_and_pipelined() -> None:
    stream = PLAIN + CHUNKED + PLAIN + TRAILED
    assert parse(*(bytes([byte]) for byte in stream)) == [RUN] * 4
    assert parse(stream) == [RUN] * 4


def test_without_a_body() -> None:
    assert parse(b"GET / HTTP/1.1\r\n\r\n") == [Request(b"GET", b"/", b"", True)]


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"close", False),
        (b"1.1", b"Keep-Alive, Close", False),
        (b"1.1", b"upgrade", True),
        (b"1.0", b"keep-alive", True),
        (b"1.0", b"x", False),
    ],
)
def test_whether_a_connection_is_kept(version: bytes, connection: bytes, kept: bool) -> None:
    [request] = parse(b"POST / HTTP/" + version + b"\r\nConnection: " + connection + b"\r\n\r\n")
    assert request.keep_alive is kept


def test_a_client_that_waits_for_100() -> None:
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert parser.next() is None
    assert parser.expects_continue
    parser.feed(b"{}")
    assert parser.next() is not None
    assert not parser.expects_continue


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense", 400),
        (b"POST /run", 400),
        (b"POST /run HTTP/2", 505),
        (b"POST / HTTP/1.1\r\nno colon", 400),
        (b"POST / HTTP/1.1\r\nContent-Length : 1", 400),
        (b"POST / HTTP/1.1\r\n folded: 1", 400),
        (b"POST / HTTP/1.1\r\na: b\nContent-Length: 3", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip", 501),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999", 413),
        (b"POST / HTTP/1.1\r\nExpect: more", 417),
        (b"POST / HTTP/1.1\r\nlong: " + b"x" * http.HEAD_BYTES_MAX, 431),
    ],
)
def test_heads_that_are_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse(head + b"\r\n\r\n")
    assert refused.value.status == status


@pytest.mark.parametrize(
    "chunks", [b"x\r\n", b"\r\n", b"-1\r\n", b"2\r\nabc\r\n", b"123456789\r\n", b"1" * 1024]
)
def test_chunks_that_are_refused(chunks: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)


def test_a_head_without_an_end_is_bounded() -> None:
    with pytest.raises(BadRequestError):
        parse(*[b"x" * 1024] * 20)


def test_chunks_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_BYTES_MAX", 5)
    with pytest.raises(BadRequestError) as refused:
        parse(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\n")
    assert refused.value.status == 413
