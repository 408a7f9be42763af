"""`python -m tests.simulation`: many seeds on all processors, or one seed shown."""

from __future__ import annotations

import argparse
import multiprocessing
import sys

from tests.simulation.planted import PLANTED, use_planted_extension


def main() -> int:
    """Returns 1 if a seed failed, or if nothing was explored."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0-2000", help="first-last (last left out), or one seed")
    parser.add_argument("--events", type=int, default=500, help="of each seed, at least")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--planted", default="", help="a bug to make on purpose: it must be found")
    parser.add_argument("--show", action="store_true", help="print all that happens")
    asked = parser.parse_args()
    if asked.planted and asked.planted not in PLANTED:
        use_planted_extension()
    from tests.simulation import campaign  # only now: it imports the extension

    first, _, last = asked.seeds.partition("-")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    run = campaign.find if asked.planted else campaign.hold
    return run(campaign.Job(seeds, asked.events, asked.workers, asked.show, asked.planted))


if __name__ == "__main__":
    sys.exit(main())
