"""The Manager: creates containers, shares their slots among the Routers, and ends them."""
