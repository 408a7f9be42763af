"""Measures, and writes bench/results: `python bench/run.py [--quick] [AREA…]`.

Exits 0 even where a goal is missed: the figures say so, and whoever reads them decides.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import accounting
import bridge
import burst
import coldstart
import dataplane
import failover
import figure
import instructions
import lane
import rebalancing
import rest
import router
import store

AREAS: dict[str, Callable[[Path, bool], list[figure.Figure]]] = {
    "accounting": accounting.measure,
    "router": router.measure,
    "dataplane": dataplane.measure,
    "bridge": bridge.measure,
    "instructions": instructions.measure,
    "coldstart": coldstart.measure,
    "failover": failover.measure,
    "rebalancing": rebalancing.measure,
    "burst": burst.measure,
    "rest": rest.measure,
    "store": store.measure,
    "lane": lane.measure,
}


def main() -> None:
    """Runs the areas one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    arguments = parser.parse_args()
    unknown = set(arguments.areas) - set(AREAS)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(AREAS)}")
    figures: list[figure.Figure] = []
    for name in arguments.areas or AREAS:
        print(f"{name} …", flush=True)
        with tempfile.TemporaryDirectory(prefix="slotway-") as directory:
            figures += AREAS[name](Path(directory), arguments.quick)
    figure.write(figures)
    print((figure.RESULTS / "report.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
