"""`make drills`: one fault after the other on a cluster under load, and what must hold after."""
