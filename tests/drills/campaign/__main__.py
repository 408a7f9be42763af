"""`python -m tests.drills.campaign`: one fault after the other on a cluster of real processes under
load, and what must hold after each; ends with a table, and a status other than 0 if a promise was
broken or a fault took no effect. See docs/campaign.md.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from slotway.etcd.server import find
from tests.drills.campaign import clocks, house
from tests.drills.campaign.network import Network
from tests.drills.campaign.run import ETCDS, MANAGERS, ROUTERS, Run
from tests.drills.campaign.schedule import CLOCKS, DISK, NETWORK, PROCESSES, STORES

SECONDS = 600
INTERRUPTED = 130


def main() -> int:
    """Runs a campaign; the exit status."""
    parser = argparse.ArgumentParser(prog="make drills", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=0, help="0: any")
    parser.add_argument("--planted-bug", default="", help="of the Routers: it has to be found")
    parser.add_argument("--only", default="", help="faults, with semicolons between")
    parser.add_argument("--no-house", action="store_true", help="only what needs no namespaces")
    parser.add_argument("--keep", action="store_true", help="leave the logs of all parts")
    arguments = parser.parse_args()
    if not arguments.seed:
        arguments.seed = random.SystemRandom().randrange(1, 2**31)
        sys.argv += ["--seed", str(arguments.seed)]
    if not house.inside() and not arguments.no_house:
        if not (why := house.missing()):
            return house.run(sys.argv[1:])
        print(f"no faults of network, clock and disk here: {why}")
    return campaign(arguments)


def campaign(arguments: argparse.Namespace) -> int:
    """Where this process is."""
    faults = {**PROCESSES, **STORES}
    if clocks.library():
        faults |= CLOCKS
    else:
        print(f"no clocks jump here: apt-get install {clocks.PACKAGE}")
    network = None
    if house.inside():
        faults |= {**NETWORK, **DISK}
        managers = [f"manager-{number}" for number in range(1, MANAGERS + 1)]
        routers = [f"router-{number}" for number in range(1, ROUTERS + 1)]
        network = Network([*managers, *routers, *(f"etcd-{n}" for n in range(1, ETCDS + 1))])
        network.open()
    if only := [name.strip() for name in arguments.only.split(";") if name.strip()]:
        if unknown := set(only) - set(faults):
            print(f"no such faults here: {unknown}; there are: {'; '.join(faults)}")
            return 2
        faults = {name: faults[name] for name in ("nothing", *only)}
    quiet = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=quiet)
    seed = arguments.seed
    print(f"drills: SEED={seed} SECONDS={arguments.seconds:g}, {find()}")
    os.environ["SLOTWAY_ROUTER_PLANTED_BUG"] = arguments.planted_bug
    run = Run(seed, arguments.seconds, faults)
    folder = Path(tempfile.mkdtemp(prefix="slotway-drills-"))
    began = time.monotonic()
    keep = arguments.keep
    try:
        asyncio.run(run.run(folder, network))
        keep |= bool(run.broken)
    except KeyboardInterrupt:
        print("interrupted")
        return INTERRUPTED
    except BaseException:
        keep = True
        raise
    finally:
        report(run, Console(width=None if sys.stdout.isatty() else 120))
        if keep:
            print(f"logs: {folder}/parts/logs")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if run.broken:
        print(f"broken {time.monotonic() - began:.0f} s after the start;", end=" ")
        print(f"once more: make drills SEED={seed}")
        return 1
    print("Every promise was kept, and every fault took effect.")
    return 0


def report(run: Run, console: Console) -> None:
    """The table."""
    table = Table(title=f"Faults of seed {run.seed}")
    for column, justify in (("fault", "left"), ("injected", "right"), ("effective", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("seen, the last time")
    for name in run.faults:
        times = (str(run.injected[name]), str(run.effective[name]))
        table.add_row(name, *times, run.seen.get(name, ""))
    console.print(table)
    console.print(run.summary, markup=False)
    for broken in run.broken:
        console.print(f"BROKEN: {broken}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
