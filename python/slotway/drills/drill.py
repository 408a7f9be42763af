"""The drills: what each does, and what is to be expected. docs/drills.md has the same by hand."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from slotway.drills.steps import DrillError, Shell

FOREIGN = {
    "schema": 1,
    "id": "stranger",
    "address": "127.0.0.1:1",
    "incarnation": "put-by-hand",
}


@dataclass(frozen=True, slots=True)
class Context:
    """What a drill works with."""

    shell: Shell
    leader: str
    """The Manager that leads, by its id."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill. The clock runs from the last command of `fault`."""

    name: str
    summary: str
    expect: str
    fault: Callable[[Context], Awaitable[None]]
    end: Callable[[Context], Awaitable[None]] | None = None
    """Ends what lasts, after the time that was given: only then is there a cold answer."""
    after: Callable[[Context], Awaitable[None]] | None = None
    """Ends what lasts, when everything was measured."""
    new_leader: bool = True
    """Another Manager leads after it."""


async def _handover(context: Context) -> None:
    context.shell.kill(signal.SIGTERM, [context.leader])


async def _kill_leader(context: Context) -> None:
    context.shell.kill(signal.SIGKILL, [context.leader])


async def _stop_leader(context: Context) -> None:
    context.shell.kill(signal.SIGSTOP, [context.leader])


async def _wake_leader(context: Context) -> None:
    context.shell.kill(signal.SIGCONT, [context.leader])


async def _delete_key(context: Context) -> None:
    await context.shell.etcdctl("del", context.shell.target.keys.leader)


async def _revoke_lease(context: Context) -> None:
    lease = await context.shell.lease_of(context.shell.target.keys.leader)
    await context.shell.etcdctl("lease", "revoke", f"{lease:x}")


async def _foreign_leader(context: Context) -> None:
    await context.shell.etcdctl("put", context.shell.target.keys.leader, json.dumps(FOREIGN))


async def _read(context: Context) -> None:
    keys = context.shell.target.keys
    for arguments in (("get", keys.leader), ("get", "--prefix", keys.containers)):
        print(await context.shell.etcdctl(*arguments), end="")


@dataclass(frozen=True, slots=True)
class Member:
    """One of etcd's members, as it says itself."""

    endpoint: str
    id: int
    leads: bool
    revision: int


async def _members(context: Context) -> list[Member]:
    """Those that answer."""
    found = []
    for endpoint in context.shell.target.etcd:
        try:
            text = await context.shell.etcdctl(
                "endpoint", "status", "-w", "json", "--command-timeout=3s", endpoint=endpoint
            )
        except DrillError:
            continue
        status = json.loads(text)[0]["Status"]
        own = status["header"]["member_id"]
        leads = own == status["leader"]
        found.append(Member(endpoint, own, leads, status["header"]["revision"]))
    if not any(member.leads for member in found):
        raise DrillError("etcd has no leader: too few of its members run")
    return found


async def _move_etcd_leader(context: Context) -> None:
    members = await _members(context)
    leading = next(one for one in members if one.leads)
    others = [one for one in members if not one.leads]
    if not others:
        raise DrillError("etcd has one member: `slotway dev --etcd-members 3` has three")
    await context.shell.etcdctl("move-leader", f"{others[0].id:x}", endpoint=leading.endpoint)


async def _kill_etcd_leader(context: Context) -> None:
    target = context.shell.target
    if len(target.members) < 3:
        raise DrillError("fewer than three members of etcd run: `slotway dev --etcd-members 3`")
    leading = next(one for one in await _members(context) if one.leads)
    number = target.etcd.index(leading.endpoint) + 1
    context.shell.kill(signal.SIGKILL, [f"etcd-{number}"])


async def _stop_etcd(context: Context) -> None:
    context.shell.kill(signal.SIGSTOP, list(context.shell.target.members))


async def _wake_etcd(context: Context) -> None:
    context.shell.kill(signal.SIGCONT, list(context.shell.target.members))


async def _compact(context: Context) -> None:
    members = await _members(context)
    await context.shell.etcdctl("compact", str(max(one.revision for one in members)))
    for member in members:
        await context.shell.etcdctl("defrag", endpoint=member.endpoint)


async def _fill(context: Context) -> None:
    alarm = {"action": "ACTIVATE", "alarm": "NOSPACE"}
    member = (await _members(context))[0]
    await context.shell.post(member.endpoint, "/v3/maintenance/alarm", alarm)


async def _clear(context: Context) -> None:
    await context.shell.etcdctl("alarm", "list")
    await context.shell.etcdctl("alarm", "disarm")


_OTHER_LEADS = "another Manager leads; no warm request notices"
DRILLS = {
    drill.name: drill
    for drill in (
        Drill(
            "read",
            "read the leader and the ledger with etcdctl",
            "JSON that a person can read; nothing changes",
            _read,
            new_leader=False,
        ),
        Drill("handover", "ask the leader to stop (SIGTERM)", _OTHER_LEADS, _handover),
        Drill("kill-leader", "kill the leader (SIGKILL)", _OTHER_LEADS, _kill_leader),
        Drill(
            "stop-leader",
            "stop the leader (SIGSTOP) until another leads",
            _OTHER_LEADS + "; the old one finds that out when it goes on",
            _stop_leader,
            after=_wake_leader,
        ),
        Drill("delete-key", "delete the leader key", "a Manager takes it at once", _delete_key),
        Drill("revoke-lease", "revoke the leader's lease", "as delete-key", _revoke_lease),
        Drill(
            "foreign-leader",
            "put a leader that is not there on the key",
            "its address refuses connections: a Manager takes the key after 2 s",
            _foreign_leader,
        ),
        Drill(
            "move-etcd-leader",
            "have etcd choose another leader among its members",
            "nobody notices",
            _move_etcd_leader,
            new_leader=False,
        ),
        Drill(
            "kill-etcd-leader",
            "kill etcd's own leader, one of three members",
            "cold requests wait for etcd's election, warm ones do not notice",
            _kill_etcd_leader,
            new_leader=False,
        ),
        Drill(
            "stop-etcd",
            "stop all of etcd for a while (--seconds)",
            "warm requests do not notice; a cold one is answered when etcd is back",
            _stop_etcd,
            _wake_etcd,
            new_leader=False,
        ),
        Drill(
            "compact",
            "compact etcd's history, and defragment it",
            "nobody notices",
            _compact,
            new_leader=False,
        ),
        Drill(
            "full",
            "raise etcd's alarm NOSPACE for a while (--seconds), and clear it",
            "writes are refused meanwhile, and the Manager says so; warm requests do not notice",
            _fill,
            _clear,
            new_leader=False,
        ),
    )
}
