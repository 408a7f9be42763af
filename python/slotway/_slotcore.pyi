"""Types of the extension: the exact accounting (`Ledger`, `SlotTable`), the data plane (`DataPlane`) and the
load generator (`Load`).

Terms are `(epoch, revision)`, versions `(epoch, revision, counter)`; both compare as tuples. Routers are named by their
incarnation, containers by their id. Nothing here reads a clock for safety, and nothing blocks on I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self, TypeAlias, final

__all__: list[str]
__all__ = [
    "Commit",
    "CommitPending",
    "DataPlane",
    "Events",
    "Ledger",
    "LedgerError",
    "Load",
    "LoadReport",
    "LoadedAction",
    "Order",
    "Slot",
    "SlotTable",
    "Term",
    "Version",
    "__version__",
]

__version__: str

Term: TypeAlias = tuple[int, int]
Version: TypeAlias = tuple[int, int, int]

class LedgerError(ValueError):
    """The ledger refuses a step; nothing changed. The message says which rule it would break."""

class CommitPending(LedgerError):
    """A commit is under way: events wait for the next turn."""

@final
class Order:
    """An absolute target to be sent on the stream it was planned for."""

    @property
    def router(self) -> str: ...
    @property
    def stream(self) -> int: ...
    @property
    def container(self) -> str: ...
    @property
    def target(self) -> int: ...
    @property
    def version(self) -> Version: ...

@final
class Commit:
    """One guarded transaction: compare the leader key with `term` and the turn key with `turn`, put the turn key and
    the records."""

    @property
    def term(self) -> Term: ...
    @property
    def turn(self) -> int:
        """The etcd revision that the turn key must have (0: absent)."""
    @property
    def puts(self) -> list[tuple[str, dict[str, int]]]:
        """Container id and its shares, for every record to be put."""
    @property
    def deletes(self) -> list[str]:
        """Container ids whose records are to be deleted."""

@final
class Ledger:
    """The Manager's side of the protocol: who holds which share, and what may be said to whom.

    Steps: `attach`/`detach`/`hello`/`acknowledge` take what Routers say; `add`/`touch`/`remove`/`grant`/`recall` stage
    what the plan wants; `begin` … `committed` | `rejected` | `unknown` + `settled` run the chain of commits; `orders`
    gives what may be sent now. While a commit is under way every step but these, `attach` and `detach` raises
    `CommitPending`. An order is handed out only when its container has no write staged or under way, so whatever is
    planned for a container in one turn follows that turn's write.
    """

    def __new__(cls, *, planted: str = "") -> Self:
        """`planted`: see `SlotTable`."""
    # Leadership.
    def lead(
        self, term: Term, turn: int, records: Iterable[tuple[str, int, Mapping[str, int]]]
    ) -> list[tuple[str, int]]:
        """Begins a term over `records` (container, capacity, shares) as of the winning revision.

        Returns the open streams (router, stream), each to be greeted with a Welcome. Raises LedgerError if a record
        promises more than its capacity."""
    def depose(self) -> None:
        """Not leader any more: nothing staged or pending will be sent. Streams stay open."""
    @property
    def term(self) -> Term | None:
        """The term that is led, or None."""
    @property
    def pending(self) -> bool:
        """Whether a commit is under way."""
    @property
    def staged(self) -> bool:
        """Whether anything waits for a commit."""
    # What Routers say.
    def attach(self, router: str, stream: int) -> bool:
        """A stream opened; the greatest number is the newest. False: a newer one is known, drop this one.
        If a term is led, the caller sends a Welcome."""
    def detach(self, router: str, stream: int) -> None:
        """The stream closed. Its router's shares stay as they are."""
    def hello(
        self, router: str, stream: int, term: Term, holdings: Iterable[tuple[str, int, int]]
    ) -> list[str]:
        """Holdings (container, held, running) in answer to the Welcome of `term`. Stages the lowering of every share
        that is larger than max(held, running), and orders held anew where more run than are held. Returns the
        containers named that are not on the ledger, which the caller tells the router to be ended.
        Raises LedgerError if a holding is above the ledger (the ledger has forgotten a grant)."""
    def acknowledge(
        self, router: str, stream: int, container: str, holding: int, version: Version
    ) -> bool:
        """Stages the lowering to `holding`; False if the acknowledgement does not count. Where this stream has ordered
        nothing of the container yet (slots of an older term were given back), the same amount is ordered, so that the
        next acknowledgement counts: take `orders` after it."""
    # What the plan wants.
    def add(self, container: str, capacity: int) -> None:
        """Stages a new record without shares."""
    def give(self, container: str, capacity: int) -> None:
        """Stages the record with a capacity: a stem cell, which was added with 0, becomes an action's. LedgerError if
        it has a capacity already."""
    def touch(self, container: str) -> None:
        """Stages a rewrite of the record, because a field that the ledger does not know has changed."""
    def remove(self, container: str) -> None:
        """Stages the deletion of the record. Only on proof that the container has ended; voids its shares."""
    def grant(self, container: str, router: str, target: int) -> None:
        """Stages a raise to `target`; its order follows the commit. Raises LedgerError past the capacity, if the
        router has not said Hello on its newest stream, or if target is not above the share."""
    def recall(self, container: str, router: str, target: int) -> None:
        """Orders a lowering to `target` (or back up to the recorded share); nothing is written before the router's
        acknowledgement. Belongs to the container's transaction if it has one in this turn."""
    # The chain of commits.
    def begin(self, records_max: int) -> Commit | None:
        """Takes at most `records_max` staged records into a transaction; None if nothing is staged."""
    def begin_empty(self) -> Commit:
        """A transaction that only moves the chain, for writes of records that are not containers'."""
    def committed(self, revision: int) -> None:
        """The transaction was applied at this revision; its orders may be sent now."""
    def rejected(self) -> None:
        """A compare failed: another one leads, or the chain moved. Same as `depose`."""
    def unknown(self) -> Term:
        """No answer came. Nothing may be sent until `settled`: repeat a transaction that compares the leader key with
        the returned term, puts the turn key and reads all records in its success branch."""
    def settled(self, revision: int, records: Iterable[tuple[str, int, Mapping[str, int]]]) -> None:
        """The fencing write was applied at `revision` and read `records`. Replaces the view; every known router is
        told again what the ledger says. Staged changes are dropped, those of acknowledgements and Hellos too: plan
        anew."""
    def orders(self) -> list[Order]:
        """Takes the orders that may be sent now. Orders whose stream is not the newest any more are dropped."""
    # Views.
    def shares(self, container: str) -> dict[str, int]:
        """The shares as recorded."""
    def staged_shares(self, container: str) -> dict[str, int]:
        """The shares as they will be recorded when all that is staged is committed."""
    def target(self, container: str, router: str) -> int:
        """What the router was last ordered, or is about to be: the recorded share if nothing lower is ordered."""
    def free(self, container: str) -> int:
        """Slots that may be granted: capacity less all staged shares."""
    def known(self, router: str) -> bool:
        """Whether the router has said Hello in this term on its newest stream."""
    def version_sent(self, container: str, router: str) -> Version | None:
        """The newest order sent on this stream."""
    def containers_of(self, router: str) -> list[str]:
        """Containers of which the router has a share on the ledger."""

@final
class Slot:
    """The right to have one request in flight on one container; of use once. One that is dropped stays taken until its
    container ends."""

    @property
    def index(self) -> int:
        """0 to capacity - 1, unlike that of every other slot of the container."""
    @property
    def container(self) -> str: ...

@final
class SlotTable:
    """The Router's side of the protocol, and its queues, by itself: for tests and measurements. `DataPlane` has one.

    A waiter is a number of the caller's, used once.
    """

    def __new__(
        cls, *, action_waiters_max: int = 10_000, waiters_max: int = 100_000, planted: str = ""
    ) -> Self:
        """`planted` is a bug to be made on purpose, in an extension that was built with the feature of that name."""
    def open_stream(self, manager: str, stream: int) -> None: ...
    def close_stream(self, manager: str, stream: int) -> None: ...
    def welcome(self, manager: str, stream: int, term: Term) -> list[tuple[str, int, int]] | None:
        """See `DataPlane.welcome`."""
    def order(
        self,
        manager: str,
        stream: int,
        version: Version,
        container: str,
        target: int,
        action: str,
        capacity: int,
        now_ms: int = 0,
    ) -> list[tuple[int, Slot]] | None:
        """Obeys an order; returns the waiters that were served by it. None if it is stale. Raises ValueError if target
        is above capacity."""
    def ended(self, container: str) -> bool:
        """The container has ended: its slots are void. False if it was not known."""
    def acknowledgements(self) -> list[tuple[str, int, Version]]:
        """Takes the acknowledgements that have become due: (container, holding, version). One that is not yet down to
        the order's target is followed by others, whenever a slot above it has really ended."""
    def acquire(self, action: str) -> Slot | None:
        """Takes an idle slot."""
    def enqueue(self, action: str, waiter: int, blocking: bool) -> bool:
        """Waits for a slot; False if the queue is full."""
    def cancel(self, waiter: int) -> bool:
        """Leaves the queue; False if not in it."""
    def release(self, slot: Slot) -> tuple[int, Slot] | None:
        """Gives a slot back; returns the waiter that got it. Raises ValueError if it was given back before."""
    def set_aside(self, slot: Slot, until_ms: int) -> None:
        """The container refused a connection: the slot is of no use before `until_ms`."""
    def restore(self, now_ms: int) -> list[tuple[int, Slot]]:
        """Brings back what was set aside until now or before; returns the waiters that were served by it."""
    def strand(self, slot: Slot) -> tuple[int, Slot] | None:
        """The slot's request may run on though nobody hears its answer: the slot stays taken until the container ends."""
    def drain(self, action: str) -> list[int]:
        """Takes everybody out of the action's queue."""
    def give_back(self, idle_ms: int, now_ms: int) -> None:
        """See `DataPlane.give_back`."""
    @property
    def term(self) -> Term:
        """The newest term welcomed or obeyed."""
    @property
    def obeyed(self) -> Version | None:
        """The newest order obeyed."""
    @property
    def demand_rose(self) -> bool:
        """A blocking request waits for an action of which none waited at the last report."""
    @property
    def demand_changed(self) -> bool:
        """A report has something to tell."""
    @property
    def acknowledgements_due(self) -> bool: ...
    def has_share(self, action: str) -> bool:
        """Whether the action has any share here, idle or not."""
    def demand(self) -> list[tuple[str, int, list[tuple[str, int]]]]:
        """See `DataPlane.demand`."""
    def holdings(self) -> list[tuple[str, int, int]]:
        """(container, held, running) of every share."""

@final
class DataPlane:
    """The Router's data plane: a native thread that serves `Invoke` and passes every other method on.

    Methods are called from one thread. They take a short lock, never wait for I/O, and raise ValueError on arguments
    out of range. `fileno` becomes readable when `events` has something.
    """

    def __new__(
        cls,
        *,
        listen: str,
        upstream: str,
        incarnation: str,
        queue_max: int = 10_000,
        max_wait_ms: int = 60_000,
        request_bytes_max: int = 1_048_576,
        response_bytes_max: int = 5_242_880,
        idle_close_ms: int = 1_000,
        threads: int = 1,
        planted_bug: str = "",
        nested_max_wait_ms: int = 5_000,
        actions_listen: str | None = None,
    ) -> Self:
        """Binds `listen` (host:port, port 0: any) at once; raises OSError. `upstream` is the path of the Python server's
        Unix socket. Requests that come in at `actions_listen`, which other Routers may have bound too, or with the
        metadata `slotway-caller`, are of running actions, and wait for `nested_max_wait_ms` at most. `planted_bug` is for tests of the checks: "one_too_many" sends C+1."""
    @property
    def address(self) -> str:
        """host:port that is bound."""
    def start(self) -> None:
        """Begins to accept."""
    def fileno(self) -> int: ...
    # The session's protocol; see `Ledger` for the other side.
    def open_stream(self, manager: str, stream: int) -> None: ...
    def close_stream(self, manager: str, stream: int) -> None: ...
    def welcome(self, manager: str, stream: int, term: Term) -> list[tuple[str, int, int]] | None:
        """Obeys no older term from now on. Returns the holdings (container, held, running) for the Hello, or None if
        the Welcome is of a closed stream or an older term: say nothing."""
    def order(
        self,
        manager: str,
        stream: int,
        version: Version,
        container: str,
        target: int,
        action: str,
        revision: int,
        address: str,
        capacity: int,
        timeout_ms: int,
        parameters: bytes,
    ) -> bool:
        """Obeys an order; False if it is stale. An unknown container with target 0 is obeyed and acknowledged too."""
    def ended(self, manager: str, stream: int, term: Term, container: str, how: str = "") -> bool:
        """The container has ended: its slots are void, what runs on it ends as CONTAINER_LOST, with `how`."""
    def peers(self, action: str, peers: Sequence[tuple[str, str, int]]) -> None:
        """Replaces the action's peers: (incarnation, address, waiting)."""
    def drop_peers(self) -> None:
        """Forgets all peers: their lists are too old."""
    def refuse(self, action: str, reason: str, message: str, retry_ms: int) -> None:
        """Ends the action's waiting requests with this reason; retry_ms < 0: no RetryInfo."""
    def give_back(self, idle_ms: int) -> None:
        """Gives shares back that idled for so long, as of the calls to this; they are among the next acknowledgements.
        0: all that idles now, for a Router that stops."""
    # What is to be reported.
    def events(self) -> Events:
        """Takes what happened since the last call and clears `fileno`."""
    def demand(self) -> list[tuple[str, int, list[tuple[str, int]]]]:
        """Absolute demand of every action that is not quite idle, or changed since the last call:
        (action, waiting, [(container, idle)])."""
    @property
    def obeyed(self) -> Version | None:
        """The newest order obeyed."""
    # Stopping.
    def stop_accepting(self) -> None:
        """Not ready: new requests are refused with STOPPING; running and waiting ones go on. The listener stays open."""
    def running(self) -> int:
        """Requests that wait or run here, and connections' answers not yet written."""
    def close(self) -> None:
        """Closes the listener and ends the thread. Requests that still run are cut."""
    # Views.
    def holdings(self) -> list[tuple[str, str, int, int]]:
        """(container, action, held, running) of every share."""
    # The async lane; each of the two waits is for one thread, and blocks without the interpreter's lock.
    def open_submissions(self, is_open: bool) -> None:
        """Takes `Submit`s from now on, or none any more: those that wait are told that nobody answers."""
    def take_submissions(
        self, max: int, patience_ms: int
    ) -> list[tuple[str, str, bytes, str | None]] | None:
        """Waits for submissions, and takes up to `max`: (id, action, payload, key). Empty after `patience_ms`; None:
        they are closed. The batch before must have been answered."""
    def acknowledge(self, ids: list[str]) -> None:
        """The batch taken last is on disk: the activation of each, in its order."""
    def refuse_submissions(self, reason: str, message: str, retry_ms: int) -> None:
        """Nothing is known to be stored of the batch taken last."""
    def want(self, action: str, count: int, is_urgent: bool) -> None:
        """So many slots of the action are wanted in the async lane; `is_urgent`: and one as if a request waited."""
    def wait_for_lane(
        self, patience_ms: int
    ) -> tuple[
        list[tuple[str, int, int]],
        list[tuple[str, int, int, bytes | None, str, str]],
        list[tuple[str, str, str]],
    ]:
        """Waits until something happens in the async lane: (action, slots that wait for a claim, timeout in ms), attempts
        that have ended (id, token, start in ms, answer or None, reason, message), and (action, reason, message) where
        there are no slots. Slots that nothing was claimed for within a second go back by themselves."""
    def ring(self) -> None:
        """Ends a `wait_for_lane`."""
    def run(self, attempts: Sequence[tuple[str, int, str, bytes]]) -> list[str]:
        """Runs what was claimed (id, token, action, payload) in the slots that were told of, and gives the rest of these
        back. Returns the ids of those that there is no slot for any more."""
    def counters(self) -> dict[str, int]:
        """Monotonic counters: requests, answers, errors by reason, forwarded, connections opened."""

@final
class Events:
    """What happened at the data plane since the last call."""

    @property
    def acknowledgements(self) -> list[tuple[str, int, Version]]:
        """(container, holding, version), due to every Manager's newest stream, once: on a stream that is opened later the
        Hello says as much."""
    @property
    def demand_rose(self) -> bool:
        """Some action's demand left zero: report at once."""
    @property
    def demand_changed(self) -> bool:
        """Some action's demand or idle slots changed. This alone does not make `fileno` readable: it belongs to the
        periodic report."""
    @property
    def troubles(self) -> list[tuple[str, str, int]]:
        """(container, "overrun" | "refused", slots newly affected since the last call)."""

@final
class Load:
    """An open-loop load generator: requests arrive by a schedule that does not wait for answers, and a latency is
    counted from the moment that the schedule named. The schedule depends on the arguments alone."""

    def __new__(
        cls,
        *,
        endpoints: list[str],
        targets: list[tuple[str, bytes, float]],
        rate: float,
        duration_s: float,
        arrivals: str = "poisson",
        factor: float = 1.0,
        period_s: float = 1.0,
        connections: int = 1,
        deadline_s: float = 60.0,
        outstanding_max: int = 10_000,
        late_s: float = 1.0,
        bucket_s: float = 0.1,
        seed: int = 0,
    ) -> Self:
        """`endpoints` are Routers' front doors, "address:port". `targets` are (action, payload, weight). `rate` is in
        requests per second. `arrivals`: "constant"; "poisson"; "bursty", with half of the requests in bursts of
        `factor` times the rate, one each `period_s`; "wave", which swings by the part `factor` around the rate. Raises
        ValueError if that makes no sense."""
    def run(self) -> LoadReport:
        """Sends everything and waits for all answers; blocks without the interpreter's lock. ConnectionError if a front
        door does not answer."""
    def stop(self) -> None:
        """From another thread: no more requests arrive, those under way are waited for."""
    def progress(self) -> tuple[int, int, int]:
        """From another thread: requests that arrived, succeeded, failed."""

@final
class LoadReport:
    """What became of all requests. Moments are those of `time.monotonic_ns`."""

    @property
    def began_ns(self) -> int: ...
    @property
    def ended_ns(self) -> int: ...
    @property
    def actions(self) -> list[LoadedAction]:
        """In the order of the targets."""
    def lag_us(self, quantile: float) -> int:
        """How late the generator itself was."""

@final
class LoadedAction:
    """What became of one action's requests."""

    @property
    def action(self) -> str: ...
    @property
    def outcomes(self) -> dict[str, int]:
        """Requests by how they ended: "ok", "application error", an error's reason, "status N", "connection", "no
        answer", "not sent"."""
    @property
    def late(self) -> int:
        """Succeeded after more than `late_s`."""
    @property
    def seen_max(self) -> int:
        """The greatest number `"seen"` in a result: a witness's."""
    @property
    def gap_ns(self) -> tuple[int, int]:
        """The longest time between two successes, and the moment of the second one."""
    @property
    def buckets(self) -> list[tuple[int, int, int, int]]:
        """The time in parts of `bucket_s`: (arrived, succeeded, failed, greatest latency in µs)."""
    def latency_us(self, quantile: float) -> int:
        """Of those that succeeded, from the moment that the schedule named."""
