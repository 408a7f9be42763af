"""The session's messages from the data plane's tuples, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from slotway.router.plane import Term, Version
from slotway.v1 import manager_pb2 as pb

TROUBLES = {
    "overrun": pb.ContainerTrouble.KIND_OVERRUN,
    "refused": pb.ContainerTrouble.KIND_REFUSED,
}

UNKNOWN = pb.Container(action="_/_", address="unix:/-", capacity=1)
"""Stands for what a Manager has not described, and takes back."""
UNKNOWN.timeout.FromSeconds(1)


def term(message: pb.Term) -> Term:
    """(epoch, revision)."""
    return message.epoch, message.revision


def described(container: pb.Container) -> tuple[str, int, str, int, int, bytes]:
    """(action, revision, address, capacity, timeout in ms, default arguments)."""
    return (
        container.action,
        container.revision,
        container.address,
        container.capacity,
        container.timeout.ToMilliseconds(),
        container.parameters,
    )


def version_message(version: Version) -> pb.Version:
    """The version of an order."""
    epoch, revision, counter = version
    return pb.Version(term=pb.Term(epoch=epoch, revision=revision), counter=counter)


def hello(
    of: Term, holdings: Iterable[tuple[str, int, int]], protocol_min: int, protocol_max: int
) -> pb.Hello:
    """Answers the Welcome of a term with (container, held, running) of each share."""
    return pb.Hello(
        term=pb.Term(epoch=of[0], revision=of[1]),
        protocol_min=protocol_min,
        protocol_max=protocol_max,
        holdings=[
            pb.Holding(container_id=container, held=held, running=running)
            for container, held, running in holdings
        ],
    )


def acknowledgements(due: Mapping[str, tuple[int, Version]]) -> list[pb.ShareAcknowledgement]:
    """From container to (holding, version)."""
    return [
        pb.ShareAcknowledgement(
            container_id=container, holding=holding, version=version_message(version)
        )
        for container, (holding, version) in due.items()
    ]


def demand(reported: Iterable[tuple[str, int, list[tuple[str, int]]]]) -> list[pb.ActionDemand]:
    """From (action, waiting, [(container, idle)])."""
    return [
        pb.ActionDemand(
            action=action,
            waiting=waiting,
            idle=[pb.IdleShare(container_id=container, idle=count) for container, count in idle],
        )
        for action, waiting, idle in reported
    ]


def troubles(seen: Mapping[tuple[str, str], int]) -> list[pb.ContainerTrouble]:
    """From (container, "overrun" | "refused") to slots."""
    return [
        pb.ContainerTrouble(container_id=container, kind=TROUBLES[kind], slots=slots)
        for (container, kind), slots in seen.items()
    ]
