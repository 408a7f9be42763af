"""The Python action runtime: OpenWhisk's action interface around one user function.

Standard library only, and nothing of the rest of the package: images carry a copy of it. An action
may import `activation` from here; the rest is private. `docs/runtime.md` says what an action may
rely on.
"""

from .activation import Activation, activation

__all__ = ["Activation", "activation"]
