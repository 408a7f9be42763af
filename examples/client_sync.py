"""The client without asyncio: puts an action, runs it, and looks at who holds which slots.

Usage: python client_sync.py [HOST:PORT]     otherwise SLOTWAY_ENDPOINT
"""

import os
import sys
from pathlib import Path

import slotway

CODE = Path(__file__).with_name("hello.py").read_bytes()


def main(endpoint: str) -> None:
    """Runs the example."""
    with slotway.Client(endpoint) as client:
        action = client.put_action("examples/hello-sync", CODE, concurrency=10)
        activation = client.invoke(action.name, {"name": "Ada"}, timeout=30)
        print(f"{activation.result['greeting']} ({activation.run.total_seconds() * 1000:.1f} ms)")

        for container in client.cluster().containers:
            record = container.record
            held = sum(record.shares.values())
            print(f"{record.action}: {held} of {record.capacity} slots of {record.id} are held")

        client.delete_action(action.name)


main(sys.argv[1] if len(sys.argv) > 1 else os.environ["SLOTWAY_ENDPOINT"])
