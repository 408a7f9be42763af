"""Starts a command that does not outlive its parent: `python tether.py PARENT COMMAND…`.

The kernel kills the command when the thread that started it ends (PR_SET_PDEATHSIG).
A program of its own rather than a `preexec_fn`, which may deadlock in a process with threads.
Standard library only: it runs without site-packages.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` tied to this process. The process id stays the same."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Ties this process to its parent and becomes the command."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"tether: prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(sys.argv[1]):
        sys.exit("tether: the parent has ended already")
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as exc:
        sys.exit(f"{sys.argv[2]}: {exc.strerror}")


if __name__ == "__main__":
    main()
