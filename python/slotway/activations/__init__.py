"""The durable store of activations: SQLite by default, PostgreSQL for a cluster of many hosts."""

from slotway.activations.activation import (
    Activation,
    Claim,
    Finish,
    Outcome,
    Status,
    Submission,
    Waiting,
    Want,
)
from slotway.activations.database import StoreFullError, StoreUnavailableError
from slotway.activations.state import Policy, State
from slotway.activations.store import BATCH_MAX, Store

__all__ = [
    "BATCH_MAX",
    "Activation",
    "Claim",
    "Finish",
    "Outcome",
    "Policy",
    "State",
    "Status",
    "Store",
    "StoreFullError",
    "StoreUnavailableError",
    "Submission",
    "Waiting",
    "Want",
]
