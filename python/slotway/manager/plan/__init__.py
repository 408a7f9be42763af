"""What is to be done, decided from facts: pure code without clock, I/O or randomness.

`plan_action` decides for one action, `admit` shares the cluster's room among the actions. Neither
changes its arguments. What they decide is validated once more by the ledger.
"""

from slotway.manager.plan.action import plan_action
from slotway.manager.plan.cluster import Admission, Held, Inventory, Room, Wish, admit, reach
from slotway.manager.plan.fair import fair
from slotway.manager.plan.prewarm import Cell, Refill, Stock, refill
from slotway.manager.plan.view import (
    ActionView,
    ContainerView,
    Decisions,
    Order,
    Phase,
    RouterView,
    Share,
    Tempo,
)

__all__ = [
    "ActionView",
    "Admission",
    "Cell",
    "ContainerView",
    "Decisions",
    "Held",
    "Inventory",
    "Order",
    "Phase",
    "Refill",
    "Room",
    "RouterView",
    "Share",
    "Stock",
    "Tempo",
    "Wish",
    "admit",
    "fair",
    "plan_action",
    "reach",
    "refill",
]
