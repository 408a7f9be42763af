"""An action that invokes another one through the front door, with the standard library alone: gRPC
over HTTP/2 in plain text, as many frames as one call takes."""

import json
import os
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM = ACK = 1
END_HEADERS = 4


def frame(kind, flags, stream, payload):
    """A frame of HTTP/2."""
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def text(value):
    """A string of HPACK, shorter than 127 bytes and as it is."""
    return bytes([len(value)]) + value.encode()


def number(value):
    """A varint of protobuf."""
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def fields(message):
    """The fields of a protobuf message that are strings or messages, by number."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 2:
            length = varint()
            found[key >> 3] = message[at : at + length]
            at += length
        else:
            varint()
    return found


def invoke(host, action, arguments):
    """The bytes of the action's result; RuntimeError if the call was refused."""
    name, _, port = host.rpartition(":")
    payload = json.dumps(arguments).encode()
    request = (
        b"\x0a" + number(len(action)) + action.encode() + b"\x12" + number(len(payload)) + payload
    )
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/slotway.v1.RouterService/Invoke"),
        (":authority", host),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    block = b"".join(b"\0" + text(key) + text(value) for key, value in headers)
    with socket.create_connection((name, int(port)), 10) as connection:
        connection.sendall(
            PREFACE
            + frame(SETTINGS, 0, 0, b"")
            + frame(HEADERS, END_HEADERS, 1, block)
            + frame(DATA, END_STREAM, 1, b"\0" + struct.pack(">I", len(request)) + request)
        )
        answer, stream = b"", connection.makefile("rb")
        while True:
            head = stream.read(9)
            if len(head) < 9:
                raise RuntimeError("the connection broke")
            body = stream.read(int.from_bytes(head[:3], "big"))
            if head[3] == SETTINGS and not head[4] & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0, b""))
            if head[3] == DATA:
                answer += body
            if head[3] in (DATA, HEADERS) and head[4] & END_STREAM:
                break
    if not answer:
        raise RuntimeError("the call was refused")
    return fields(answer[5:])[2]


def main(args):
    """Invokes `action` with `arguments`, and returns its result."""
    host = os.environ["__OW_API_HOST"]
    return json.loads(invoke(host, args["action"], args["arguments"]))
