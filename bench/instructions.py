"""Instructions per request outside the kernel, by callgrind: hardly moved by a busy machine.

Beside the CPU time of bench/dataplane.py, which counts the kernel too. Under callgrind a program is
some fifty times slower, so the batches in which requests come differ from a real run's.
"""

import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

from dataplane import LOAD, Proxy, containers, haproxy, ours
from figure import Figure
from load import generate, grpc_body
from process import MissingError, find

REQUESTS = 5_000
CONTROL_S = 60


def count(proxy: Proxy, output: Path, body: Path) -> float:
    """Instructions for one request. The proxy runs under callgrind, which writes to `output`."""
    pid = str(proxy.process.pid)

    def control(*options: str) -> None:
        command = [find("callgrind_control", "valgrind"), *options, pid]
        subprocess.run(command, check=True, capture_output=True, timeout=CONTROL_S)

    generate(proxy.url, body, LOAD, REQUESTS // 5, *proxy.options)
    control("-i", "on")
    generate(proxy.url, body, LOAD, REQUESTS, *proxy.options)
    control("-i", "off")
    control("-d")
    totals = re.search(r"^totals: (\d+)$", Path(f"{output}.1").read_text(encoding="utf-8"), re.M)
    assert totals is not None
    return int(totals[1]) / REQUESTS


def measure(directory: Path, quick: bool) -> list[Figure]:
    """Ours and HAProxy's, over TCP."""
    del quick
    figures = []
    body = directory / "invoke.bin"
    body.write_bytes(grpc_body())
    names = ("dataplane.instructions", "dataplane.haproxy_instructions")
    for name, start in zip(names, (ours, haproxy), strict=True):
        output = directory / name
        try:
            valgrind = find("valgrind", "valgrind")
            under = [valgrind, "-q", "--tool=callgrind", "--instr-atstart=no"]
            under.append(f"--callgrind-out-file={output}")
            with ExitStack() as stack:
                place = directory / start.__name__
                place.mkdir()
                addresses = stack.enter_context(containers(place))["tcp"]
                proxy = stack.enter_context(start(addresses, directory, under))
                value: float | None = count(proxy, output, body)
                note = "callgrind, outside the kernel"
        except MissingError as missing:
            value, note = None, str(missing)
        figures.append(Figure(name, value, "per request", None, note))
    return figures
