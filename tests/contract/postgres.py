"""A PostgreSQL server of our own, as an unprivileged user, in a folder that goes with it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

START_S = 30.0
STOP_S = 20.0
_POLL_S = 0.05
_USERS = ("postgres", "nobody")
_NUMBER = 5432  # names the socket in the folder; no port is opened


class NoPostgresError(Exception):
    """PostgreSQL cannot be run here; says why."""


def find(program: str) -> str:
    """The path of one of PostgreSQL's programs, which Debian keeps out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)
    path = shutil.which(program) or (found and str(found[0]))
    if not path:
        raise NoPostgresError(f"no {program}: apt-get install postgresql")
    return path


class PostgresServer:
    """One server, reached by a Unix socket alone. Also a context manager that runs it."""

    def __init__(self, *settings: str) -> None:
        """`settings`: "name=value". Makes the folder and the data. NoPostgresError."""
        self.settings = settings
        self.within: tuple[str, ...] = ()  # a command that runs the server's
        self._user = _user()
        self._process: subprocess.Popen[bytes] | None = None
        programs = find("initdb"), find("postgres")
        self.folder = Path(tempfile.mkdtemp(prefix="slotway-pg-", dir="/tmp"))
        self._log = self.folder / "log"
        self._data = self.folder / "data"
        self._postgres = programs[1]
        if self._user:
            os.chown(self.folder, *_ids(self._user))
        initdb = [programs[0], "-D", str(self._data), "-U", "slotway", "--auth=trust", "--no-sync"]
        made = subprocess.run(
            [*self._as_user(), *initdb, "--encoding=UTF8", "--locale=C.UTF-8"],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=60,
            check=False,
        )
        if made.returncode != 0:
            self.remove()
            raise NoPostgresError(f"initdb failed: {made.stdout}{made.stderr}")

    def url(self, user: str = "slotway") -> str:
        """Where it is."""
        return f"postgresql://{user}@/postgres?host={self.folder}&port={_NUMBER}"

    def psql(self, command: str) -> str:
        """Runs SQL, and returns what it prints."""
        psql = [find("psql"), "-h", str(self.folder), "-U", "slotway", "-d", "postgres", "-AtXq"]
        done = subprocess.run(
            [*psql, "-v", "ON_ERROR_STOP=1", "-c", command],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout.strip()

    def empty(self) -> str:
        """Drops all that is in its one database; returns `url()`."""
        self.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return self.url()

    def start(self) -> None:
        """Starts it and waits until it takes connections; NoPostgresError if it does not."""
        options = [
            "listen_addresses=",
            f"unix_socket_directories={self.folder}",
            f"port={_NUMBER}",
            "max_connections=50",
            *self.settings,
        ]
        command = [self._postgres, "-D", str(self._data)]
        for option in options:
            command += ["-c", option]
        ready = [find("pg_isready"), "-q", "-h", str(self.folder)]
        deadline = time.monotonic() + START_S
        self._spawn(command)
        while subprocess.run(ready, check=False, timeout=START_S).returncode != 0:
            if time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise NoPostgresError(f"it did not start: {self._log.read_text()[-2000:]}")
            time.sleep(_POLL_S)
            if self._process is None or self._process.poll() is not None:
                # The children of a crashed one go a moment after it, and it refuses until then.
                self._spawn(command)

    def _spawn(self, command: list[str]) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.within, *self._as_user(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it: SIGINT cuts its clients off and writes all out; SIGQUIT, SIGKILL are crashes."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def remove(self) -> None:
        """Ends it, and removes the folder."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def owner(self) -> str:
        """Whom its files belong to, as options of install(1)."""
        return f"-o {self._user} -g {_ids(self._user)[1]}" if self._user else ""

    def _as_user(self) -> list[str]:
        """Ends with the thread that started it, as some other user than root."""
        tied = ["setpriv", "--pdeathsig=KILL"]
        if self._user:
            tied += [f"--reuid={self._user}", f"--regid={_ids(self._user)[1]}", "--clear-groups"]
        return tied


def _user() -> str:
    """Whom to become; "": nobody else."""
    if os.getuid() != 0:
        return ""
    for name in _USERS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise NoPostgresError(f"PostgreSQL does not run as root, and there is none of {_USERS}")


def _ids(user: str) -> tuple[int, int]:
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid
