"""`python -m slotway.runtime`: the runtime as the program of an image, or by hand."""

from __future__ import annotations

import argparse
import os
import signal
import socket

from .server import serve


def main() -> None:
    """Listens where the command line says and serves until a signal."""
    parser = argparse.ArgumentParser(prog="slotway.runtime", description=__doc__)
    parser.add_argument("--socket", help="path of a Unix socket to listen on, instead of TCP")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument(
        "--capacity",
        type=int,
        default=int(os.environ.get("SLOTWAY_CAPACITY", "1")),
        help="C (default: SLOTWAY_CAPACITY, or 1)",
    )
    parser.add_argument(
        "--limit", type=int, default=0, help="refuse more activations at once (default 0: never)"
    )
    options = parser.parse_args()
    # Process 1 of a container has no default actions.
    for number in signal.SIGTERM, signal.SIGINT:
        signal.signal(number, lambda got, _: os._exit(128 + got))
    if options.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(options.socket)
    else:
        listener = socket.create_server((options.host, options.port))
    serve(listener, options.capacity, limit=options.limit)


if __name__ == "__main__":
    main()
