"""Failovers: faults under load, each many times, from the fault to a Router's new share."""
