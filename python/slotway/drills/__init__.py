"""Drills: faults that a person can try on a live cluster under load, and what they cost."""
