"""The asyncio client: puts an action, runs it many times at once, and tells errors apart.

Usage: python client_async.py [HOST:PORT]     otherwise SLOTWAY_ENDPOINT
"""

import asyncio
import os
import sys
from pathlib import Path

from slotway.aio import ApplicationError, CallError, Client

CODE = Path(__file__).with_name("hello.py").read_bytes()


async def main(endpoint: str) -> None:
    """Runs the example."""
    async with Client(endpoint) as client:
        action = await client.put_action("examples/hello-async", CODE, concurrency=10)
        print(f"{action.name} has revision {action.revision}")

        names = [f"guest {number}" for number in range(20)]
        activations = await asyncio.gather(
            *(client.invoke(action.name, {"name": name}, timeout=30) for name in names)
        )
        containers = {activation.container_id for activation in activations}
        print(
            f"{activations[0].result['greeting']} … {len(names)} runs, {len(containers)} containers"
        )

        try:
            await client.invoke(action.name, {"name": 7})
        except ApplicationError as error:
            print(f"the action's own error: {error}")
        try:
            await client.invoke("examples/none")
        except CallError as error:
            print(f"an error of the call: {error.reason}: {error}")

        await client.delete_action(action.name)


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else os.environ["SLOTWAY_ENDPOINT"]))
