"""The generated stubs, without a client around them: nothing but gRPC.

Usage: python bare_stubs.py [HOST:PORT]     otherwise SLOTWAY_ENDPOINT
Works as well with stubs that protoc made: see protoc_stubs.sh.
"""

import json
import os
import sys
from pathlib import Path

import grpc

from slotway.v1 import action_pb2, action_pb2_grpc, router_pb2, router_pb2_grpc

CODE = Path(__file__).with_name("hello.py").read_bytes()


def main(endpoint: str) -> None:
    """Runs the example."""
    with grpc.insecure_channel(endpoint) as channel:
        actions = action_pb2_grpc.ActionServiceStub(channel)
        router = router_pb2_grpc.RouterServiceStub(channel)

        action = action_pb2.Action(
            name="examples/hello-bare",
            exec=action_pb2.Exec(kind="python:3"),
            limits=action_pb2.Limits(concurrency=10),
        )
        actions.PutAction(action_pb2.PutActionRequest(action=action, code=CODE), timeout=30)

        payload = json.dumps({"name": "Ada"}).encode()
        answer = router.Invoke(
            router_pb2.InvokeRequest(action=action.name, payload=payload), timeout=30
        )
        print(f"{answer.activation_id}: {answer.WhichOneof('outcome')} {answer.result.decode()}")

        actions.DeleteAction(action_pb2.DeleteActionRequest(name=action.name), timeout=30)


main(sys.argv[1] if len(sys.argv) > 1 else os.environ["SLOTWAY_ENDPOINT"])
