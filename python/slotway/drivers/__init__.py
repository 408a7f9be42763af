"""Drivers: how containers are created, found again and ended. `base` is the interface."""
