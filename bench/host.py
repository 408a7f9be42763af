"""Hosts a data plane for a bench: shares are ordered here, without a Manager.

`host.py ACTIONS SLOTS ADDRESS…` gives every action one container per address. It prints the front
door's address, then answers each line of standard input with the data plane's counters as JSON,
and ends with its input.
"""

import json
import sys
import tempfile
from pathlib import Path

from slotway._slotcore import DataPlane


def host(actions: int, slots: int, addresses: list[str], upstream: Path) -> DataPlane:
    """A started data plane with so many slots of each container. A lone action is "bench/echo"."""
    plane = DataPlane(listen="127.0.0.1:0", upstream=str(upstream), incarnation="bench")
    plane.start()
    plane.open_stream("manager", 1)
    plane.welcome("manager", 1, (1, 1))
    counter = 0
    for action in range(actions):
        name = "bench/echo" if actions == 1 else f"bench/action-{action}"
        for place, address in enumerate(addresses):
            counter += 1
            assert plane.order(
                "manager",
                1,
                (1, 1, counter),
                f"container-{action}-{place}",
                slots,
                name,
                1,
                address,
                slots,
                60_000,
                b"",
            )
    return plane


def main() -> None:
    """Serves until the input ends."""
    actions, slots, *addresses = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        plane = host(int(actions), int(slots), addresses, Path(directory) / "upstream.sock")
        print(plane.address, flush=True)
        for _ in sys.stdin:
            plane.events()
            print(json.dumps(plane.counters()), flush=True)


if __name__ == "__main__":
    main()
