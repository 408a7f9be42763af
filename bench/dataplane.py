"""The data plane beside HAProxy: CPU time per request, requests per second, latency added.

The proxy under test has one core to itself, the generator and the containers have the other; the
containers answer at once. Rounds are interleaved (ours, HAProxy's, ours, …), and a ratio is the
median of the rounds' ratios.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from figure import ROOT, Figure
from load import GENERATOR_CORE, GRPC, INVOKE, PAYLOAD, Load, generate, grpc_body, latency_p50_us
from process import MissingError, ask, await_port, cpu_s, find, free_port, running

PROXY_CORE = 0
SLOTS = 16
LOAD = Load(connections=4, streams=16)
#: CPU time per request, as a ratio to HAProxy's over the same kind of socket.
GOALS = {"tcp": 0.95, "unix": 0.75}
LATENCY_GOAL_US = 150


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


@cache
def build_container() -> str:
    """The path of the container that answers at once."""
    command = ["cargo", "build", "-q", "--release", "--locked", "-p", "slotcore-dataplane"]
    subprocess.run([*command, "--example", "container"], cwd=ROOT, check=True)
    return str(ROOT / "target" / "release" / "examples" / "container")


@contextmanager
def containers(directory: Path) -> Iterator[dict[str, list[str]]]:
    """Two containers; their addresses, by kind of socket."""
    addresses: dict[str, list[str]] = {"tcp": [], "unix": []}
    with ExitStack() as stack:
        for name in ("a", "b"):
            places = ["127.0.0.1:0", f"unix:{directory / name}.sock"]
            command = [build_container(), *places]
            process = stack.enter_context(running(command, GENERATOR_CORE))
            for kind in addresses:
                addresses[kind].append(ask(process))
        yield addresses


@contextmanager
def ours(addresses: list[str], directory: Path, under: Sequence[str] = ()) -> Iterator[Proxy]:
    """A data plane in a process of its own; `under` is a command that runs it."""
    del directory
    host = [sys.executable, str(Path(__file__).with_name("host.py")), "1", str(SLOTS)]
    with running([*under, *host, *addresses], PROXY_CORE) as process:
        yield Proxy(process, f"http://{ask(process)}{INVOKE}", GRPC)


@contextmanager
def haproxy(addresses: list[str], directory: Path, under: Sequence[str] = ()) -> Iterator[Proxy]:
    """HAProxy in the foreground; `under` is a command that runs it."""
    port = free_port()
    text = Path(__file__).with_name("haproxy.cfg").read_text(encoding="utf-8")
    values = {"PORT": str(port), "SLOTS": str(SLOTS)}
    for name, address in zip("AB", addresses, strict=True):
        values[f"CONTAINER_{name}"] = address.replace("unix:", "unix@")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    config = directory / "haproxy.cfg"
    config.write_text(text, encoding="utf-8")
    command = [*under, find("haproxy", "haproxy"), "-db", "-f", str(config)]
    with running(command, PROXY_CORE) as process:
        await_port(f"127.0.0.1:{port}")
        yield Proxy(process, f"http://127.0.0.1:{port}/run", GRPC)


def spread(values: list[float]) -> str:
    """The quartiles, and how many there are."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"quartiles {low:.3g} … {high:.3g} of {len(values)} rounds"


def measure_beside(
    directory: Path, containers: dict[str, list[str]], quick: bool
) -> dict[str, Proxy]:
    """Rounds of ours and HAProxy's, interleaved: under each kind of socket's name, and under that
    with "haproxy_" before it. `containers` has two addresses of each kind."""
    rounds, requests = (9, 5_000) if quick else (31, 12_000)
    body = directory / "invoke.bin"
    body.write_bytes(grpc_body())
    proxies: dict[str, Proxy] = {}
    with ExitStack() as stack:
        for kind, addresses in containers.items():
            place = directory / kind
            place.mkdir()
            proxies[kind] = stack.enter_context(ours(addresses, place))
            proxies[f"haproxy_{kind}"] = stack.enter_context(haproxy(addresses, place))
        for proxy in proxies.values():
            generate(proxy.url, body, LOAD, requests, *proxy.options)
        for _ in range(rounds):
            for proxy in proxies.values():
                proxy.round(body, requests)
        for kind in containers:
            counters = json.loads(ask(proxies[kind].process, "counters"))
            if counters["answers"] != (rounds + 1) * requests:
                raise RuntimeError(f"{(rounds + 1) * requests} requests, but {counters}")
    return proxies


def ratio(name: str, one: Proxy, other: Proxy, goal: float | None) -> Figure:
    """The CPU time of a request of the one, as a ratio to the other's in the same round."""
    ratios = [a / b for a, b in zip(one.cpu_us, other.cpu_us, strict=True)]
    return Figure(name, statistics.median(ratios), "", goal, spread(ratios))


def absolute(area: str, proxies: dict[str, Proxy]) -> list[Figure]:
    """What the ratios are of."""
    figures = []
    for name, proxy in proxies.items():
        whose, _, kind = name.rpartition("_")
        prefix = f"{area}.{whose}_" if whose else f"{area}."
        cpu, rate = statistics.median(proxy.cpu_us), statistics.median(proxy.rates)
        figures += [
            Figure(f"{prefix}cpu_us_{kind}", cpu, "µs", None, spread(proxy.cpu_us)),
            Figure(f"{prefix}requests_per_s_{kind}", rate, "1/s", None, spread(proxy.rates)),
        ]
    return figures


def compare(directory: Path, quick: bool) -> list[Figure]:
    """Ours and HAProxy's, over TCP and over Unix sockets, all in the same rounds."""
    with containers(directory) as addresses:
        proxies = measure_beside(directory, addresses, quick)
    mixed = "dataplane.cpu_ratio_unix_to_haproxy_tcp"
    return [
        *(
            ratio(f"dataplane.cpu_ratio_{kind}", proxies[kind], proxies[f"haproxy_{kind}"], goal)
            for kind, goal in GOALS.items()
        ),
        ratio(mixed, proxies["unix"], proxies["haproxy_tcp"], None),
        *absolute("dataplane", proxies),
    ]


def added_latency(directory: Path, quick: bool) -> list[Figure]:
    """A request through the data plane less the same to the container: over TCP, one at a time."""
    rounds, requests = (3, 3_000) if quick else (7, 10_000)
    body, plain, log = (directory / name for name in ("invoke.bin", "run.json", "h2load.log"))
    body.write_bytes(grpc_body())
    plain.write_bytes(b'{"value":' + PAYLOAD + b"}")
    with ExitStack() as stack:
        addresses = stack.enter_context(containers(directory))["tcp"]
        us = stack.enter_context(ours(addresses, directory))
        direct = f"http://{addresses[0]}/run"
        added = []
        for _ in range(rounds):
            through = latency_p50_us(us.url, body, requests, log, *GRPC)
            added.append(through - latency_p50_us(direct, plain, requests, log, "--h1"))
    median = statistics.median(added)
    return [Figure("dataplane.added_latency_p50_us", median, "µs", LATENCY_GOAL_US, spread(added))]


def measure(directory: Path, quick: bool) -> list[Figure]:
    """All figures of the data plane; without the programs they need, they have no value."""
    try:
        compared = directory / "compared"
        compared.mkdir()
        return [*compare(compared, quick), *added_latency(directory, quick)]
    except MissingError as missing:
        goals = {f"cpu_ratio_{kind}": goal for kind, goal in GOALS.items()}
        goals["added_latency_p50_us"] = LATENCY_GOAL_US
        return [Figure(f"dataplane.{n}", None, "", goal, str(missing)) for n, goal in goals.items()]
