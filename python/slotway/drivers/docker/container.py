"""A container as the engine is asked for it, and as the engine tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slotway.drivers.base import ContainerId, ContainerSpec, DriverError, Label
from slotway.drivers.docker.network import CLUSTER

ID = "slotway.id"
EPOCH = "slotway.epoch"
TERM = "slotway.term"
ADDRESS = "slotway.address"
TOMB = "slotway.tomb"
CONCURRENCY = "slotway.concurrency"
"""An image's label: its runtime can run activations side by side."""
ID_BYTES_MAX = 40
USER = "65534:65534"
TMP_MIB = 64
SHM_MIB = 16
LOG_MIB = 1
LOG_FILES = 2


class State(StrEnum):
    """What the engine says of a container, as far as it matters here."""

    CREATED = "created"
    """It was never started, and may be."""
    RUNNING = "running"
    EXITED = "exited"
    """Nothing of it runs, and it could be started again until it is removed."""
    TOMB = "tomb"
    """No container, but what holds the name of one that has ended."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the engine knows about a name."""

    engine_id: str
    """The engine's own id: never used for another container."""
    state: State
    labels: Mapping[str, str]
    ending: str = ""
    """How it ended, for people."""

    @property
    def id(self) -> ContainerId:
        """Ours."""
        return ContainerId(self.labels.get(ID, ""))

    @property
    def label(self) -> Label:
        """What it carries. DriverError if that is not ours."""
        try:
            labels = self.labels
            return Label(labels[CLUSTER], int(labels[EPOCH]), self.id, labels[TERM])
        except (KeyError, ValueError) as error:
            raise DriverError(
                f"the Docker container {self.engine_id[:12]} has a name of ours, but no label of"
                " ours: remove it"
            ) from error

    @property
    def address(self) -> str:
        """Where it listens, host:port."""
        return self.labels.get(ADDRESS, "")


def name_of(cluster: str, container: ContainerId) -> str:
    """The engine's name for it. DriverError if this cannot be an id."""
    plain = container.isascii() and container.replace("-", "").replace("_", "").isalnum()
    if not plain or len(container) > ID_BYTES_MAX:
        raise DriverError(f"not a container's id: {container!r}")
    return f"slotway.{cluster}.{container}"


def hardened(spec: ContainerSpec, image: str, network: str, cpus: float) -> dict[str, object]:
    """The body of `POST /containers/create`. The tests in `test_docker_security.py` try each
    restriction from inside."""
    label, memory_bytes = spec.label, spec.memory_mib * 1024 * 1024
    files = 1024 + 4 * spec.capacity
    host = spec.address.rpartition(":")[0]
    return {
        "Image": image,
        "User": USER,
        "Env": [f"SLOTWAY_CONTAINER={label.id}", f"SLOTWAY_CAPACITY={spec.capacity}"],
        "WorkingDir": "/tmp",
        "Labels": {
            CLUSTER: label.cluster,
            EPOCH: str(label.epoch),
            ID: label.id,
            TERM: label.term,
            ADDRESS: spec.address,
        },
        "HostConfig": {
            "NetworkMode": network,
            # Asked from within the container's own network, where nobody answers: older engines
            # pass names on to the host's resolver, even out of an internal network.
            "Dns": [] if spec.network else ["127.0.0.1"],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "ReadonlyRootfs": True,
            # Programs too: runtimes unpack an action there, and run it.
            "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,size={TMP_MIB}m,mode=1777"},
            "ShmSize": SHM_MIB * 1024 * 1024,
            "IpcMode": "private",
            "Memory": memory_bytes,
            "MemorySwap": memory_bytes,
            "NanoCpus": int(cpus * 1e9),
            "PidsLimit": 64 + 2 * spec.capacity,
            "Ulimits": [
                {"Name": "nofile", "Soft": files, "Hard": files},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": f"{LOG_MIB}m", "max-file": str(LOG_FILES)},
            },
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": host}}}},
    }


def tomb(cluster: str, container: ContainerId, image: str) -> dict[str, object]:
    """What holds the name of a container that has ended: it has no program, so that it can never
    run."""
    return {
        "Image": image,
        "Cmd": ["-"],
        "Labels": {CLUSTER: cluster, ID: container, TOMB: "true"},
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none", "Config": {}}},
    }


def of_inspection(answer: Mapping[str, Any]) -> Found:
    """Reads `GET /containers/NAME/json`."""
    labels, state = answer["Config"]["Labels"] or {}, answer["State"]
    return Found(answer["Id"], _state(labels, state["Status"]), labels, _ending(answer))


def of_listing(answer: Mapping[str, Any]) -> Found:
    """Reads one element of `GET /containers/json`."""
    labels = answer["Labels"] or {}
    return Found(answer["Id"], _state(labels, answer["State"]), labels)


def _state(labels: Mapping[str, str], status: str) -> State:
    if TOMB in labels:
        return State.TOMB
    match status:
        case "created":
            return State.CREATED
        case "exited" | "dead":
            return State.EXITED
        case _:  # also paused, restarting, removing: something may run
            return State.RUNNING


def _ending(answer: Mapping[str, Any]) -> str:
    state = answer["State"]
    if state.get("OOMKilled"):
        memory_mib = answer["HostConfig"]["Memory"] // (1024 * 1024)
        return f"it used more memory than its limit of {memory_mib} MiB"
    if state.get("Error"):
        return str(state["Error"])
    return f"its program ended with status {state.get('ExitCode')}"
