"""`python -m slotway.cli` is `slotway`."""

from slotway.cli.main import app

app(prog_name="slotway")
