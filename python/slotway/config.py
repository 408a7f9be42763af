"""Configuration: flags, then `SLOTWAY_*` variables, then one TOML file, then the defaults below.

The file has the keys of `Shared` at its top (`cluster`, `[etcd]`, `[log]`) and the sections
`[manager]` and `[router]`. A variable is named by its path: `SLOTWAY_CLUSTER`,
`SLOTWAY_ETCD_ENDPOINTS`, `SLOTWAY_MANAGER_KEEP_WARM`. Durations are texts with a unit: "500ms",
"30s", "5m", "1h".
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from slotway.endpoints import split_endpoint

if TYPE_CHECKING:
    from slotway.etcd import Access

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_STOCK = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> timedelta:
    """What "500ms", "30s", "5m" or "1h" mean; ValueError if it is not such a text."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError('not a duration: write a number and a unit, as in "500ms", "30s" or "5m"')
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    return duration(value if isinstance(value, str) else "")


def _words(value: object) -> object:
    return (
        [part for part in re.split(r"[,\s]+", value) if part] if isinstance(value, str) else value
    )


def _pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in re.split(r"[,\s]+", value) if part]
    if not all(sign for _, sign, _ in parts):
        raise ValueError('not pairs: write kind=value, as in "python:3=slotway/python:3"')
    return {key: text for key, _, text in parts}


def _stocks(value: dict[str, str]) -> dict[str, str]:
    for kind, text in value.items():
        match = _STOCK.fullmatch(text)
        if match is None or int(match[1]) > int(match[2] or match[1]) or int(match[1]) > 1000:
            raise ValueError(
                f"{kind}={text}: write the least and the most stem cells to be kept, at most 1000,"
                ' as in "python:3=2-8", or one number for both'
            )
    return value


def stock_of(text: str) -> tuple[int, int]:
    """The least and the most of "2-8" or "2"."""
    match = _STOCK.fullmatch(text)
    assert match is not None, text
    return int(match[1]), int(match[2] or match[1])


def _subnet(value: str | None) -> str | None:
    if value is not None and ipaddress.IPv4Network(value).prefixlen > 24:
        raise ValueError("too small: no address is used twice, so /24 is the least")
    return value


def _network(value: str | None) -> str | None:
    return value and str(ipaddress.IPv4Network(value))


def split_address(value: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port"; ValueError if it is not one."""
    host, _, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError('not an address: write host:port, as in "127.0.0.1:7070"')
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(value: str) -> str:
    if value:
        split_address(value)
    return value


def state_dir() -> Path:
    """Where this user's state lives."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "slotway"


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Address = Annotated[str, BeforeValidator(_address)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


def _name() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:63] or "slotway"


class Section(BaseModel):
    """Part of the configuration: unknown keys are mistakes, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class EtcdConfig(Section):
    """Where etcd is and how it is entered."""

    endpoints: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        default=("127.0.0.1:2379",), min_length=1, max_length=16
    )
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password: SecretStr = SecretStr("")
    timeout: Duration = Field(
        default=timedelta(seconds=1), ge=timedelta(milliseconds=50), le=timedelta(seconds=10)
    )

    @model_validator(mode="after")
    def _complete(self) -> EtcdConfig:
        if bool(self.cert) != bool(self.key):
            raise ValueError("`cert` and `key` belong together: give both or none")
        if self.password.get_secret_value() and not self.user:
            raise ValueError("`password` needs `user`")
        for endpoint in self.endpoints:
            split_endpoint(endpoint)
        for path in (self.ca, self.cert, self.key):
            if path and not os.access(path, os.R_OK):
                raise ValueError(f"{path} cannot be read")
        return self

    def access(self) -> Access:
        """The same in the words of the etcd client."""
        from slotway.etcd import Access  # it imports grpc, which commands can do without

        return Access(
            endpoints=self.endpoints,
            ca=self.ca,
            cert=self.cert,
            key=self.key,
            user=self.user,
            password=self.password.get_secret_value(),
            timeout_s=self.timeout.total_seconds(),
        )


class LogConfig(Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    """auto: for people in a terminal, JSON otherwise."""


class Listening(Section):
    """Where a server listens: loopback, unless `insecure` says that the network is trusted."""

    listen: Address = "127.0.0.1:0"
    """host:port; port 0: any that is free."""
    advertise: Address = ""
    """What others connect to, host:port; empty: where it listens."""
    insecure: bool = False
    """Allow an address other than loopback although there is neither TLS nor authentication."""

    @model_validator(mode="after")
    def _reachable(self) -> Listening:
        host, _ = split_address(self.listen)
        if not is_loopback(host) and not self.insecure:
            raise ValueError(
                f"`listen` {self.listen} is not loopback, and there is no TLS yet: "
                "set `insecure` if the network is trusted"
            )
        if host in ("0.0.0.0", "::") and not self.advertise:
            raise ValueError(f"`listen` {self.listen} is no address to connect to: set `advertise`")
        return self


class ManagerSection(Listening):
    """What a Manager needs to know."""

    id: Name = Field(default_factory=_name)
    """Differs between the Managers of a cluster."""
    data_dir: Path = Field(default_factory=state_dir)
    """Logs and working directories of containers, and code unless `code_store` says otherwise."""
    run_dir: Path | None = None
    """Unix sockets; a short path. None: a folder of the user's, named after `data_dir`."""
    driver: Literal["process", "docker", "fake"] = "process"
    docker_socket: str | None = None
    """None, for these five: see `drivers.docker.options`."""
    docker_subnet: Annotated[str | None, AfterValidator(_subnet)] = None
    docker_out_subnet: Annotated[str | None, AfterValidator(_network)] = None
    docker_cpus: float | None = Field(default=None, ge=0, le=1024)
    docker_images: Annotated[dict[str, str], BeforeValidator(_pairs)] | None = None
    prewarm: Annotated[dict[str, str], BeforeValidator(_pairs), AfterValidator(_stocks)] = {}
    """The least and the most stem cells of each kind: "python:3=2-8". Empty: none."""
    prewarm_ttl: Duration = Field(
        default=timedelta(minutes=5), ge=timedelta(seconds=1), le=timedelta(days=7)
    )
    """How long a stem cell beyond the least is kept."""
    prewarm_memory_mib: int = Field(default=256, ge=64, le=4096)
    """A stem cell serves actions of just this memory, in MiB."""
    prewarm_concurrency: int = Field(default=200, ge=1, le=1000)
    """The greatest C that a stem cell serves: its limits of processes and files hold so many."""
    api_host: Address = ""
    """What actions are told as `__OW_API_HOST`, host:port: the Routers' `actions_listen`. Empty:
    nothing."""
    code_store: str = ""
    """Any fsspec URL; empty: `data_dir`/code."""
    lease: Duration = Field(
        default=timedelta(seconds=5), ge=timedelta(seconds=2), le=timedelta(minutes=1)
    )
    """How long after a Manager's death its keys stay."""
    containers_max: int = Field(default=256, ge=1, le=100_000)
    memory_max_mib: int = Field(default=1_048_576, ge=64)
    """The sum of all containers' memory limits, in MiB."""
    keep_warm: Duration = Field(default=timedelta(minutes=5), ge=timedelta(0), le=timedelta(days=7))
    """How long a container without any share is kept."""
    overrun_grace: Duration = Field(
        default=timedelta(seconds=10), ge=timedelta(0), le=timedelta(minutes=10)
    )
    """How long a container with C > 1 goes on beside an overrun, before it is retired."""
    init_timeout: Duration = Field(
        default=timedelta(seconds=60), ge=timedelta(seconds=1), le=timedelta(minutes=10)
    )
    create_timeout: Duration = Field(
        default=timedelta(seconds=60), ge=timedelta(seconds=1), le=timedelta(minutes=10)
    )
    period: Duration = Field(
        default=timedelta(milliseconds=100), ge=timedelta(milliseconds=10), le=timedelta(seconds=10)
    )
    """How often Routers report while they have demand, and the Manager beats."""
    silence_grace: Duration = Field(
        default=timedelta(seconds=30), ge=timedelta(seconds=1), le=timedelta(hours=1)
    )
    """How long a silent Router's containers are left alone although they are needed."""
    residence: Duration = Field(
        default=timedelta(seconds=1), ge=timedelta(0), le=timedelta(minutes=10)
    )
    """How long a container serves at least, before another action may have its room."""

    @model_validator(mode="after")
    def _apart(self) -> ManagerSection:
        if self.docker_subnet and self.docker_out_subnet:
            one, other = map(ipaddress.IPv4Network, (self.docker_subnet, self.docker_out_subnet))
            if one.overlaps(other):
                raise ValueError(f"`docker_subnet` {one} and `docker_out_subnet` {other} overlap")
        return self

    def docker_options(self) -> dict[str, Any]:
        """What was given of `drivers.docker.DockerOptions`."""
        names = ("socket", "subnet", "out_subnet", "cpus", "images")
        given = {name: getattr(self, f"docker_{name}") for name in names}
        return {name: value for name, value in given.items() if value is not None}


class RouterSection(Listening):
    """What a Router needs to know."""

    name: Name = Field(default_factory=_name)
    """Differs between the Routers of a cluster."""
    queue_max: int = Field(default=10_000, ge=1, le=1_000_000)
    """Requests of one action that may wait."""
    max_wait: Duration = Field(
        default=timedelta(seconds=60), ge=timedelta(milliseconds=1), le=timedelta(hours=1)
    )
    actions_listen: Address = ""
    """Where actions connect to, host:port, beside `listen`: they invoke and submit there, and do
    nothing else. All Routers of a machine share it. Its host may be one that comes later, as the
    Docker network's first address; containers reach it, and so does who routes to it. Empty:
    nowhere."""
    nested_max_wait: Duration = Field(
        default=timedelta(seconds=5), ge=timedelta(milliseconds=1), le=timedelta(hours=1)
    )
    """How long a request of a running action may wait: its caller's slot is taken meanwhile."""
    request_bytes_max: int = Field(default=1_048_576, ge=1_024, le=64 * 1_048_576)
    response_bytes_max: int = Field(default=5_242_880, ge=1_024, le=64 * 1_048_576)
    idle_close: Duration = Field(
        default=timedelta(seconds=1), ge=timedelta(milliseconds=10), le=timedelta(minutes=10)
    )
    """When an idle connection to a container is closed."""
    give_back: Duration = Field(
        default=timedelta(seconds=10), ge=timedelta(milliseconds=100), le=timedelta(hours=24)
    )
    """When a share that idled so long is given back."""
    drain: Duration = Field(default=timedelta(seconds=30), ge=timedelta(0), le=timedelta(hours=1))
    """How long a graceful stop waits for requests that run."""
    threads: int = Field(default=1, ge=1, le=64)
    """Native threads of the data plane."""
    store: str = ""
    """The durable store of asynchronous invocations, the same for all Routers of a cluster:
    sqlite:////absolute/path on one host, or postgresql://user@host/database. Empty: there is none,
    and they are refused."""
    async_wait: Duration = Field(
        default=timedelta(seconds=1), ge=timedelta(0), le=timedelta(hours=1)
    )
    """How long asynchronous invocations of an action may wait until they count as demand."""
    planted_bug: Literal["", "one_too_many"] = ""
    """For tests of the checks only."""

    @model_validator(mode="after")
    def _shared(self) -> RouterSection:
        if self.actions_listen and split_address(self.actions_listen)[1] == 0:
            raise ValueError("`actions_listen` needs a port: actions are told of one, not of any")
        return self


class Shared(Section):
    """What all parts of one cluster share."""

    cluster: Name = "default"
    etcd: EtcdConfig = EtcdConfig()
    log: LogConfig = LogConfig()


class ManagerConfig(ManagerSection, Shared):
    """Everything for `slotway manager`."""


class RouterConfig(RouterSection, Shared):
    """Everything for `slotway router`."""
