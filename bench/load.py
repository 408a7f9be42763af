"""Load from h2load: bounded in count and time, and checked for success."""

import re
import statistics
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from process import find

from slotway.v1.router_pb2 import InvokeRequest

GENERATOR_CORE = 1
LIMIT_S = 120
ACTION = "bench/echo"
INVOKE = "/slotway.v1.RouterService/Invoke"
GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")
#: 64 bytes of JSON.
PAYLOAD = b'{"n":1,"text":"0123456789012345678901234567890123456789","k":12}'


def grpc_body() -> bytes:
    """An InvokeRequest with PAYLOAD, framed for gRPC."""
    message = InvokeRequest(action=ACTION, payload=PAYLOAD).SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked for at once: `connections` × `streams`."""

    connections: int
    streams: int


def generate(url: str, body: Path, load: Load, requests: int, *options: str) -> float:
    """Sends so many POST requests; requests per second. Raises RuntimeError if one failed."""
    command = [find("taskset", "util-linux"), "-c", str(GENERATOR_CORE)]
    command += [find("h2load", "nghttp2-client"), f"-c{load.connections}", f"-m{load.streams}"]
    command += [f"-n{requests}", "-d", str(body), *options, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    succeeded = re.search(r"(\d+) succeeded, 0 failed, 0 errored, 0 timeout", done.stdout)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    if succeeded is None or int(succeeded[1]) != requests or rate is None:
        raise RuntimeError(f"{url}: {done.stdout}")
    return float(rate[1])


def latency_p50_us(url: str, body: Path, requests: int, log: Path, *options: str) -> float:
    """The median time of one request after the other, in µs."""
    log.unlink(missing_ok=True)
    generate(url, body, Load(1, 1), requests, f"--log-file={log}", *options)
    lines = log.read_text(encoding="ascii").splitlines()
    return statistics.median(int(line.split("\t")[2]) for line in lines)
