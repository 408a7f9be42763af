"""What the CLI prints of messages: plain values under names that stay as they are, units last."""

from __future__ import annotations

import json
from typing import Any

from slotway.v1.action_pb2 import Action, Trouble
from slotway.v1.cluster_pb2 import (
    Cluster,
    ContainerStatus,
    EndedContainer,
    RouterStatus,
    StandbyStatus,
)
from slotway.v1.ledger_pb2 import ContainerState


def action(message: Action) -> dict[str, Any]:
    """An action."""
    return {
        "name": message.name,
        "revision": message.revision,
        "kind": message.exec.kind,
        "image": message.exec.image,
        "concurrent": message.exec.concurrent,
        "network": message.network,
        "main": message.exec.main or "main",
        "binary": message.exec.binary,
        "code_sha256": message.exec.code_sha256,
        "code_bytes": message.exec.code_bytes,
        "concurrency": message.limits.concurrency,
        "timeout_ms": message.limits.timeout.ToMilliseconds(),
        "memory_mib": message.limits.memory_mib,
        "containers_min": message.limits.containers_min,
        "containers_max": (
            message.limits.containers_max if message.limits.HasField("containers_max") else None
        ),
        "keep_warm_ms": (
            message.limits.keep_warm.ToMilliseconds()
            if message.limits.HasField("keep_warm")
            else None
        ),
        "parameters": json.loads(message.parameters or b"{}"),
        "updated_at": message.updated_at.ToJsonString(),
    }


def container(status: ContainerStatus, names: dict[str, str]) -> dict[str, Any]:
    """A container; `names` has the Routers' names by incarnation."""
    record = status.record
    return {
        "id": record.id,
        "action": record.action,
        "revision": record.revision,
        "kind": record.kind,
        "state": ContainerState.Name(record.state).removeprefix("CONTAINER_STATE_").lower(),
        "state_age_seconds": round(status.state_age.ToTimedelta().total_seconds(), 3),
        "capacity": record.capacity,
        "granted": sum(record.shares.values()),
        "shares": {
            incarnation: slots for incarnation, slots in sorted(record.shares.items()) if slots
        },
        "routers": {
            names.get(incarnation) or incarnation: slots
            for incarnation, slots in sorted(record.shares.items())
            if slots
        },
        "address": record.address,
        "driver": record.driver,
        "memory_mib": record.memory_mib,
        "reason": record.reason,
    }


def trouble(message: Trouble) -> dict[str, Any]:
    """What goes wrong with an action's containers."""
    pause = message.pause.ToTimedelta().total_seconds() if message.HasField("pause") else None
    return {
        "failures": message.failures,
        "reason": message.reason,
        "age_seconds": round(message.age.ToTimedelta().total_seconds(), 3),
        "pause_seconds": None if pause is None else round(pause, 3),
    }


def ended(message: EndedContainer) -> dict[str, Any]:
    """A container that has ended."""
    served = message.served.ToTimedelta().total_seconds() if message.HasField("served") else None
    return {
        "id": message.id,
        "action": message.action,
        "revision": message.revision,
        "crashed": message.crashed,
        "served_seconds": None if served is None else round(served, 3),
        "ended_at": message.ended_at.ToJsonString(),
        "reason": message.reason,
    }


def router(status: RouterStatus) -> dict[str, Any]:
    """A Router and what it waits for."""
    return {
        "name": status.name,
        "incarnation": status.incarnation,
        "address": status.address,
        "state": RouterStatus.State.Name(status.state).removeprefix("STATE_").lower(),
        "demand": {
            demand.action: {
                "waiting": demand.waiting,
                "idle": sum(share.idle for share in demand.idle),
            }
            for demand in status.demand
        },
    }


def standby(status: StandbyStatus) -> dict[str, Any]:
    """A Manager that follows the leader."""
    return {
        "manager": status.manager,
        "incarnation": status.incarnation,
        "address": status.address,
        "revision": status.revision,
        "lag": status.lag,
        "ready": status.ready,
    }


def cluster(message: Cluster) -> dict[str, Any]:
    """The cluster."""
    names = {status.incarnation: status.name for status in message.routers}
    return {
        "name": message.name,
        "leader": message.leader,
        "leader_address": message.leader_address,
        "term": f"{message.term.epoch}.{message.term.revision}",
        "ledger_revision": message.ledger_revision,
        "actions": message.actions,
        "standbys": [standby(status) for status in message.standbys],
        "routers": [router(status) for status in message.routers],
        "containers": [container(status, names) for status in message.containers],
    }


def owner(shown: dict[str, Any]) -> str:
    """Whose container it is; a stem cell is nobody's yet."""
    return f"{shown['action']} r{shown['revision']}" if shown["action"] else f"({shown['kind']})"


def shares(shown: dict[str, Any]) -> str:
    """Who holds how many slots of a container, on one line."""
    return " ".join(f"{name}:{slots}" for name, slots in shown["routers"].items()) or "-"
