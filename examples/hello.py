"""The smallest action: gets its arguments as a dictionary, and returns a dictionary."""

from typing import Any


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    """Greets."""
    name = arguments.get("name", "stranger")
    if not isinstance(name, str):
        # Becomes the outcome `application_error` of the activation, not an error of the call.
        raise TypeError(f"name must be a string, not {name!r}")
    return {"greeting": f"Hello, {name}!"}
