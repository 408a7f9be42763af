"""What processes are made of: tethers, folders for sockets, signals, descriptors, logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slotway.errors import SlotwayError
from slotway.rundir import PATH_BYTES_MAX, run_dir
from slotway.tether import tethered


def python(*arguments: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments, "-c", text], capture_output=True, text=True, timeout=60
    )


def test_a_tethered_command_is_the_command() -> None:
    command = tethered([sys.executable, "-c", "import os; print(os.getpid()); os._exit(7)"])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, int(output)) == (7, process.pid)


def test_a_tethered_command_ends_with_its_parent() -> None:
    """The parent is killed; the pipe that both hold tells when the command has ended, too."""
    text = (
        "import os, subprocess, sys\n"
        "from slotway.tether import tethered\n"
        "subprocess.Popen(tethered(['sleep', '600']))\n"
        "print('started', flush=True)\n"
        "os.read(0, 1)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    assert parent.stdout.readline() == b"started\n"
    parent.kill()
    assert parent.stdout.read() == b""
    parent.stdin.close()
    parent.stdout.close()
    parent.wait()


def test_a_command_that_is_not_there_is_told() -> None:
    done = subprocess.run(tethered(["/not/there"]), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "/not/there: No such file" in done.stderr


def test_sockets_are_near_the_data_if_the_path_is_short() -> None:
    assert run_dir(Path("/tmp/slotway test")) == Path("/tmp/slotway test/run")
    Path("/tmp/slotway test/run").rmdir()
    Path("/tmp/slotway test").rmdir()


def test_sockets_of_a_long_path_are_in_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    long = tmp_path / ("x" * 100)
    folder = run_dir(long)
    try:
        assert folder == run_dir(long) != run_dir(tmp_path / ("y" * 100))
        assert len(os.fsencode(folder)) <= PATH_BYTES_MAX
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o755)
        with pytest.raises(SlotwayError, match="not a private folder"):
            run_dir(long)
        folder.rmdir()
        folder.symlink_to(tmp_path)
        with pytest.raises(SlotwayError, match="not a private folder"):
            run_dir(long)
        folder.unlink()
    finally:
        run_dir(tmp_path / ("y" * 100)).rmdir()


SIGNALLED = """
import asyncio, os, signal, sys
from slotway.signals import until_signalled

async def run():
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        await asyncio.sleep(60)
    finally:
        if sys.argv[1:] == ["twice"]:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)
        print("stopped in order", flush=True)

asyncio.run(until_signalled(run()))
"""


def test_the_first_signal_stops_in_order() -> None:
    done = python(text=SIGNALLED)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "stopped in order")


def test_the_second_signal_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, "twice"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "stopped in order" not in done.stdout


DESCRIPTORS = """
import resource
from slotway.config import LogConfig
from slotway.log import configure
from slotway.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))
configure(LogConfig(), router="r1")
raise_limit(1000, "one for each slot")
raise_limit(150, "enough")
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_too_few_descriptors_are_told_with_numbers_as_json() -> None:
    done = python(text=DESCRIPTORS)
    assert done.stdout == "(200, 200)\n"
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (told["allowed"], told["wanted"], told["what"]) == (200, 1000, "one for each slot")
    assert (told["level"], told["router"]) == ("warning", "r1")
