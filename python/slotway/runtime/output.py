"""The action's stdout and stderr, told apart by activation.

Every line is written as `time activation stream: text` in one write of at most PIPE_BUF bytes, so
that lines of several threads never mix in a pipe. One activation may write so much; the rest is
dropped, and its log says so. Output that does not go through `sys.stdout` and `sys.stderr` (a child
process, `os.write`) reaches the same log as it is.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Iterable

from .activation import OUTSIDE, Activation, current

ACTIVATION_BYTES_MAX = 1024 * 1024
LINE_CHARS_MAX = 900
"""Four bytes each at most, so a line with its prefix stays below PIPE_BUF (4096)."""


class OutputStream(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr`; writes whole lines to a descriptor."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, name: str, fd: int) -> None:
        self._name = name
        self._fd = fd
        self._lock = threading.Lock()
        self.buffer = OutputBytes(self)
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The descriptor, so that child processes can be given it."""
        return self._fd

    def writable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing: the stream belongs to all activations."""

    def flush(self) -> None:
        """Nothing: lines are written at once, and an unfinished one waits for its end."""

    def write(self, text: str) -> int:
        """Writes the finished lines and keeps the rest until its line, or the activation, ends."""
        activation = current.get()
        with self._lock:
            pending = activation.partial.get(self._name, "") + text
            if "\n" in text:
                *lines, pending = pending.split("\n")
                self._write_lines(activation, lines)
            while len(pending) > LINE_CHARS_MAX:
                self._write_lines(activation, [pending[:LINE_CHARS_MAX]])
                pending = pending[LINE_CHARS_MAX:]
            activation.partial[self._name] = pending
        return len(text)

    def finish(self, activation: Activation) -> None:
        """Writes what the activation has left unfinished."""
        if activation.partial.get(self._name):
            with self._lock:
                self._write_lines(activation, [activation.partial.pop(self._name)])

    def _write_lines(self, activation: Activation, lines: Iterable[str]) -> None:
        for line in lines:
            for start in range(0, max(len(line), 1), LINE_CHARS_MAX):
                self._write_line(activation, line[start : start + LINE_CHARS_MAX])

    def _write_line(self, activation: Activation, line: str) -> None:
        if activation is not OUTSIDE:
            if activation.logged_bytes > ACTIVATION_BYTES_MAX:
                return
            activation.logged_bytes += len(line) + 1
            if activation.logged_bytes > ACTIVATION_BYTES_MAX:
                line = "the log of this activation ends here: it is too long"
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03}Z"
        record = f"{stamp} {activation.id} {self._name}: {line}\n"
        # A full or broken log must not become the action's problem.
        with contextlib.suppress(OSError):
            os.write(self._fd, record.encode("utf-8", "replace"))


class OutputBytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes are taken for UTF-8 text."""

    def __init__(self, stream: OutputStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: object) -> int:
        """Writes the bytes as text."""
        raw = bytes(data)  # type: ignore[call-overload]
        self._stream.write(raw.decode("utf-8", "replace"))
        return len(raw)


def capture() -> tuple[OutputStream, OutputStream]:
    """Puts the streams in the place of `sys.stdout` and `sys.stderr`."""
    streams = OutputStream("stdout", 1), OutputStream("stderr", 2)
    sys.stdout, sys.stderr = streams
    return streams
