"""`make mixture`: all that goes wrong, at once, for minutes, and a witness outside of Slotway."""
