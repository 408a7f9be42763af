"""The data plane beside HAProxy: CPU time per request, requests per second, latency added.

The proxy under test has one core to itself, the generator and the containers have the other; the
containers answer at once. Rounds are interleaved (ours, HAProxy's, ours, …), and a ratio is the
median of the rounds' ratios.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from figure import ROOT, Figure
from load import GENERATOR_CORE, GRPC, INVOKE, PAYLOAD, Load, generate, grpc_body, latency_p50_us
from process import MissingError, ask, await_port, cpu_s, find, free_port, running

PROXY_CORE = 0
SLOTS = 16
LOAD = Load(connections=4, streams=16)
GOALS = {"tcp": 0.95, "unix": 0.75}


@dataclass(slots=True)
class Proxy:
    """A proxy under test, and what its rounds gave."""

    process: subprocess.Popen[str]
    url: str
    options: tuple[str, ...]
    cpu_us: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def round(self, body: Path, requests: int) -> None:
        """One round of load."""
        before = cpu_s(self.process.pid)
        self.rates.append(generate(self.url, body, LOAD, requests, *self.options))
        self.cpu_us.append((cpu_s(self.process.pid) - before) / requests * 1e6)


def build_container() -> str:
    """The path of the container that answers at once."""
    command = ["cargo", "build", "-q", "--release", "--locked", "-p", "slotcore-dataplane"]
    subprocess.run([*command, "--example", "container"], cwd=ROOT, check=True)
    return str(ROOT / "target" / "release" / "examples" / "container")


@contextmanager
def containers(program: str, places: list[str]) -> Iterator[list[str]]:
    """The addresses of one container for each place."""
    with ExitStack() as stack:
        processes = [stack.enter_context(running([program, p], GENERATOR_CORE)) for p in places]
        yield [ask(process) for process in processes]


@contextmanager
def ours(addresses: list[str]) -> Iterator[Proxy]:
    """A data plane in a process of its own."""
    host = str(Path(__file__).with_name("host.py"))
    with running([sys.executable, host, "1", str(SLOTS), *addresses], PROXY_CORE) as process:
        yield Proxy(process, f"http://{ask(process)}{INVOKE}", GRPC)


@contextmanager
def haproxy(addresses: list[str], directory: Path) -> Iterator[Proxy]:
    """HAProxy in the foreground."""
    port = free_port()
    text = Path(__file__).with_name("haproxy.cfg").read_text(encoding="utf-8")
    values = {"PORT": str(port), "SLOTS": str(SLOTS)}
    for name, address in zip("AB", addresses, strict=True):
        values[f"CONTAINER_{name}"] = address.replace("unix:", "unix@")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    config = directory / "haproxy.cfg"
    config.write_text(text, encoding="utf-8")
    with running([find("haproxy", "haproxy"), "-db", "-f", str(config)], PROXY_CORE) as process:
        await_port(port)
        yield Proxy(process, f"http://127.0.0.1:{port}/run", GRPC)


def spread(values: list[float]) -> str:
    """The least and the greatest."""
    return f"{min(values):.3g} … {max(values):.3g} in {len(values)} rounds"


def compare(kind: str, places: list[str], directory: Path, quick: bool) -> list[Figure]:
    """Ours and HAProxy's over one kind of socket."""
    rounds, requests = (5, 15_000) if quick else (11, 40_000)
    body = directory / "invoke.bin"
    body.write_bytes(grpc_body())
    with ExitStack() as stack:
        addresses = stack.enter_context(containers(build_container(), places))
        us = stack.enter_context(ours(addresses))
        peer = stack.enter_context(haproxy(addresses, directory))
        for proxy in (us, peer):
            generate(proxy.url, body, LOAD, requests // 3, *proxy.options)
        for _ in range(rounds):
            us.round(body, requests)
            peer.round(body, requests)
        counters = json.loads(ask(us.process, "counters"))
    sent = requests // 3 + rounds * requests
    if counters["answers"] != sent:
        raise RuntimeError(f"{sent} requests, but {counters}")
    ratios = [a / b for a, b in zip(us.cpu_us, peer.cpu_us, strict=True)]
    ratio = statistics.median(ratios)
    figures = [Figure(f"dataplane.cpu_ratio_{kind}", ratio, "", GOALS[kind], spread(ratios))]
    for name, proxy in (("", us), ("haproxy_", peer)):
        for metric, values, unit in (
            ("cpu_us", proxy.cpu_us, "µs"),
            ("requests_per_s", proxy.rates, "1/s"),
        ):
            median = statistics.median(values)
            figures.append(
                Figure(f"dataplane.{name}{metric}_{kind}", median, unit, None, spread(values))
            )
    return figures


def added_latency(directory: Path, quick: bool) -> list[Figure]:
    """A request through the data plane less the same to the container: over TCP, one at a time."""
    rounds, requests = (3, 3_000) if quick else (7, 10_000)
    body, plain, log = (directory / name for name in ("invoke.bin", "run.json", "h2load.log"))
    body.write_bytes(grpc_body())
    plain.write_bytes(b'{"value":' + PAYLOAD + b"}")
    with ExitStack() as stack:
        addresses = stack.enter_context(containers(build_container(), ["127.0.0.1:0"]))
        us = stack.enter_context(ours(addresses))
        direct = f"http://{addresses[0]}/run"
        added = []
        for _ in range(rounds):
            through = latency_p50_us(us.url, body, requests, log, *GRPC)
            added.append(through - latency_p50_us(direct, plain, requests, log, "--h1"))
    median = statistics.median(added)
    return [Figure("dataplane.added_latency_p50_us", median, "µs", 150, spread(added))]


def measure(directory: Path, quick: bool) -> list[Figure]:
    """All figures of the data plane; those that need a program that is missing have no value."""
    unix = [f"unix:{directory / name}" for name in ("a.sock", "b.sock")]
    figures = []
    for kind, places in (("tcp", ["127.0.0.1:0"] * 2), ("unix", unix)):
        try:
            figures += compare(kind, places, directory, quick)
        except MissingError as missing:
            name = f"dataplane.cpu_ratio_{kind}"
            figures.append(Figure(name, None, "", GOALS[kind], str(missing)))
    try:
        figures += added_latency(directory, quick)
    except MissingError as missing:
        figures.append(Figure("dataplane.added_latency_p50_us", None, "µs", 150, str(missing)))
    return figures
