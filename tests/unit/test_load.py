"""The load generator against a front door of a few lines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from slotway.load import Arrivals, Generator, Shape, summary, zipf
from slotway.v1 import router_pb2, router_pb2_grpc

STALL_S = 0.4


class Door(router_pb2_grpc.RouterServiceServicer):
    """Answers at once, unless the action's name says otherwise."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.stalled = threading.Event()
        self.held = threading.Event()
        self.address = ""

    def Submit(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def Invoke(  # noqa: N802
        self, request: router_pb2.InvokeRequest, context: grpc.ServicerContext
    ) -> router_pb2.InvokeResponse:
        """Counts, and answers."""
        self.payloads.append(request.payload)
        match request.action:
            case "a/full":
                info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="slotway")
                packed = any_pb2.Any()
                packed.Pack(info)
                code = grpc.StatusCode.RESOURCE_EXHAUSTED
                status = status_pb2.Status(code=code.value[0], message="full", details=[packed])
                details = (("grpc-status-details-bin", status.SerializeToString()),)
                context.set_trailing_metadata(details)
                context.abort(code, "full")
            case "a/plain":
                context.abort(grpc.StatusCode.UNAVAILABLE, "no details")
            case "a/error":
                error = router_pb2.ApplicationError(error=b"{}", status=502)
                return router_pb2.InvokeResponse(application_error=error)
            case "a/stalls":
                if len(self.payloads) == 50 and not self.stalled.is_set():
                    self.stalled.set()
                    time.sleep(STALL_S)
            case "a/held":
                self.held.wait(10)
        return router_pb2.InvokeResponse(
            result=json.dumps({"seen": len(self.payloads)}).encode(), activation_id="x"
        )


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    # One thread: a stall holds everybody up, as that of a whole Router does.
    server = grpc.server(futures.ThreadPoolExecutor(1))
    router_pb2_grpc.add_RouterServiceServicer_to_server(door, server)
    door.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield door
    door.held.set()
    server.stop(0).wait()


def run(door: Door, *actions: str, arrivals: Arrivals, **settings: Any) -> dict[str, Any]:
    targets = [(action, b'{"n":1}', 1.0) for action in actions]
    generator = Generator([door.address], targets, arrivals, **settings)
    generator.start()
    return summary(generator.join())


def test_every_request_is_sent_and_counted_once(door: Door) -> None:
    (shown,) = run(door, "a/b", arrivals=Arrivals(200, 1, Shape.CONSTANT))["actions"]
    assert (shown["action"], shown["arrived"], shown["ok"]) == ("a/b", 200, 200)
    assert door.payloads == [b'{"n":1}'] * 200
    assert shown["failed"] == {}
    assert shown["seen_max"] == 200


def test_failures_are_told_by_their_reason(door: Door) -> None:
    names = ("a/full", "a/plain", "a/error")
    shown = run(door, *names, arrivals=Arrivals(100, 1))["actions"]
    failed = {action["action"]: action["failed"] for action in shown}
    assert failed == {
        "a/full": {"QUEUE_FULL": shown[0]["arrived"]},
        "a/plain": {"status 14": shown[1]["arrived"]},
        "a/error": {"application error": shown[2]["arrived"]},
    }


def test_a_stall_is_in_the_latency_of_all_that_were_due_in_it(door: Door) -> None:
    (shown,) = run(door, "a/stalls", arrivals=Arrivals(100, 2, Shape.CONSTANT))["actions"]
    assert shown["ok"] == 200
    # 40 of 200 were due within the stall. One that waited for answers would have sent one of them.
    assert shown["latency_ms"]["p90"] >= STALL_S * 1e3 / 4
    assert shown["longest_gap_ms"] >= STALL_S * 1e3 * 0.9


def test_a_deadline_ends_a_request(door: Door) -> None:
    arrivals = Arrivals(50, 0.2, Shape.CONSTANT)
    (shown,) = run(door, "a/held", arrivals=arrivals, deadline_s=0.2)["actions"]
    assert shown["ok"] == 0
    assert sum(shown["failed"].values()) == 10


def test_what_exceeds_the_bound_is_told_as_not_sent(door: Door) -> None:
    generator = Generator(
        [door.address], [("a/held", b"{}", 1.0)], Arrivals(1000, 0.1), outstanding_max=3
    )
    generator.start()
    while sum(generator.progress()[1:]) == 0 and not generator.wait(0.01):
        pass
    door.held.set()
    (shown,) = summary(generator.join())["actions"]
    assert len(door.payloads) + shown["failed"]["not sent"] == shown["arrived"]
    assert shown["ok"] == len(door.payloads)


def test_a_stop_ends_the_arrivals(door: Door) -> None:
    generator = Generator([door.address], [("a/b", b"{}", 1.0)], Arrivals(100, 3600))
    generator.start()
    while generator.progress()[1] < 5:
        assert not generator.wait(0.01)
    generator.stop()
    (shown,) = summary(generator.join())["actions"]
    assert shown["ok"] == shown["arrived"] == len(door.payloads)


def test_a_door_that_is_not_there_is_told() -> None:
    generator = Generator(["127.0.0.1:1"], [("a/b", b"{}", 1.0)], Arrivals(1, 1))
    generator.start()
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1"):
        generator.join()


@pytest.mark.parametrize(
    ("endpoint", "rate", "match"),
    [("localhost:1", 1.0, "IP address"), ("127.0.0.1:1", -1.0, "rate")],
)
def test_a_plan_that_makes_no_sense_is_refused(endpoint: str, rate: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Generator([endpoint], [("a/b", b"{}", 1.0)], Arrivals(rate, 1))


def test_popularity_is_skewed_as_zipf_says() -> None:
    assert zipf(3, 0.0) == [1.0, 1.0, 1.0]
    assert zipf(3, 1.0) == [1.0, 1 / 2, 1 / 3]
