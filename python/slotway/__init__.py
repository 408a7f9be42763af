"""Slotway: exact concurrency limits for functions in containers, across many routers."""
