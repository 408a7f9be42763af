"""Python's own hook at the start of each process, for a Manager that runs under a clock of the
campaign's. Of its environment it gives containers next to nothing; so what starts them begins anew
with the containers' clock, and all of them inherit that."""

import json
import os
import sys

variables = os.path.join(os.path.dirname(__file__), "containers.json")
if "slotway.drivers.zygote" in sys.orig_argv and "LD_PRELOAD" not in os.environ:
    with open(variables) as file:
        clock = json.load(file)
    os.execve(sys.orig_argv[0], sys.orig_argv, {**os.environ, **clock})
