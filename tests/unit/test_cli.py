"""The commands against a real server: what they print, send and exit with."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from slotway.cli import action, activation, cluster, container, queue
from slotway.cli.options import full_name
from slotway.errors import SlotwayError
from slotway.v1.action_pb2 import Trouble
from tests.unit.services import Services, services_in_a_thread

app = typer.Typer()
for part in (action, activation, cluster, container, queue):
    app.add_typer(part.app, name=part.__name__.rpartition(".")[2])

CODE = "def main(args):\n    return args\n"


class Shell:
    def __init__(self, services: Services, folder: Path) -> None:
        self.services = services
        self.file = folder / "hello.py"
        self.file.write_text(CODE)

    def run(self, *arguments: str, code: int = 0, env: dict[str, str] | None = None) -> Result:
        result = CliRunner().invoke(
            app, arguments, env={"SLOTWAY_ENDPOINT": self.services.address, **(env or {})}
        )
        assert result.exit_code == code, (result.output, result.exception)
        assert "Traceback" not in result.output
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "-o", "json", code=code).stdout)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with services_in_a_thread() as services:
        yield services


@pytest.fixture
def shell(services: Services, tmp_path: Path) -> Shell:
    services.actions.clear()
    services.puts.clear()
    services.invoked.clear()
    return Shell(services, tmp_path)


def test_create_sends_what_was_given(shell: Shell) -> None:
    result = shell.run(
        *("action", "create", "hello", str(shell.file), "--main", "main", "-c", "10"),
        *("-t", "2500", "-m", "128", "-p", "user", '{"id": 7}', "-p", "note", "two words"),
    )
    assert result.stdout == ""
    assert "created default/hello, revision" in result.stderr
    put = shell.services.puts[0]
    assert (put.action.name, put.code, put.expected_revision) == ("default/hello", CODE.encode(), 0)
    assert (put.action.exec.kind, put.action.exec.main) == ("python:3", "main")
    limits = put.action.limits
    assert (limits.concurrency, limits.memory_mib) == (10, 128)
    assert limits.timeout.ToMilliseconds() == 2500
    assert json.loads(put.action.parameters) == {"user": {"id": 7}, "note": "two words"}


def test_an_image_is_run_with_or_without_code(shell: Shell) -> None:
    shell.run("action", "create", "model", "--docker", "team/model:4", "-c", "5", "--concurrent")
    put = shell.services.puts[-1]
    assert not put.HasField("code")
    chosen = put.action.exec
    assert (chosen.kind, chosen.image, chosen.concurrent) == ("blackbox", "team/model:4", True)
    program = shell.file.with_suffix("")
    program.write_bytes(b"\x7fELF\xff")
    shell.run("action", "update", "model", str(program), "--no-concurrent")
    put = shell.services.puts[-1]
    assert put.code == b"\x7fELF\xff"
    chosen = put.action.exec
    assert (chosen.image, chosen.binary, chosen.concurrent) == ("team/model:4", True, False)
    shell.run("action", "update", "model", str(shell.file), "--kind", "python:3")
    chosen = shell.services.puts[-1].action.exec
    assert (chosen.kind, chosen.image, chosen.binary) == ("python:3", "", False)


def test_the_network_is_off_until_it_is_asked_for(shell: Shell) -> None:
    create = ("action", "create", "hello", str(shell.file))
    assert shell.json(*create)["network"] is False
    assert shell.json("action", "update", "hello", "--network")["network"] is True
    assert shell.json("action", "update", "hello", "-c", "2")["network"] is True
    assert shell.json("action", "update", "hello", "--no-network")["network"] is False


def test_neither_code_nor_an_image(shell: Shell) -> None:
    result = shell.run("action", "create", "model", code=1)
    assert "an image with --docker" in result.stderr
    both = ("--kind", "python:3", "--docker", "x")
    result = shell.run("action", "create", "model", *both, code=1)
    assert "either --kind or --docker" in result.stderr
    assert shell.services.puts == []


def test_create_of_what_exists(shell: Shell) -> None:
    shell.run("action", "create", "hello", str(shell.file))
    again = shell.run("action", "create", "hello", str(shell.file), code=1)
    assert again.stderr == (
        "error: default/hello exists already: change it with `slotway action update`\n"
    )


def test_update_keeps_what_was_not_given(shell: Shell) -> None:
    create = ("action", "create", "hello", str(shell.file), "-c", "10", "-m", "128", "-p", "a", "1")
    before = shell.json(*create)
    after = shell.json("action", "update", "hello", "--timeout", "900")
    assert after["timeout_ms"] == 900
    same = ("concurrency", "memory_mib", "code_bytes", "kind", "binary", "parameters")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    put = shell.services.puts[-1]
    assert not put.HasField("code")
    assert put.expected_revision == before["revision"]


def test_update_does_not_overwrite_what_somebody_else_did(shell: Shell) -> None:
    shell.run("action", "create", "hello", str(shell.file))
    shell.services.before_put.append(b"other code")
    result = shell.run("action", "update", "hello", "-c", "5", code=1)
    assert "changed by someone else meanwhile" in result.stderr
    assert shell.services.actions["default/hello"][1] == b"other code"


def test_update_with_a_file_creates(shell: Shell) -> None:
    shell.run("action", "update", "hello", code=1)
    shell.run("action", "update", "hello", str(shell.file))
    assert shell.json("action", "get", "hello")["code_bytes"] == len(CODE)


def test_zip_archives(shell: Shell, tmp_path: Path) -> None:
    good, bad, none = tmp_path / "good.zip", tmp_path / "bad.zip", tmp_path / "none.zip"
    for path, name in ((good, "__main__.py"), (bad, "other.py")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, CODE)
    none.write_text("no archive")
    assert shell.json("action", "create", "z", str(good))["binary"] is True
    assert "__main__.py" in shell.run("action", "create", "y", str(bad), code=1).stderr
    assert "no zip" in shell.run("action", "create", "y", str(none), code=1).stderr
    # An update to a source file is not an archive any more.
    assert shell.json("action", "update", "z", str(shell.file))["binary"] is False


def test_get_list_and_delete(shell: Shell, tmp_path: Path) -> None:
    for name in ("a/one", "a/two", "b/one"):
        shell.run("action", "create", name, str(shell.file))
    assert [a["name"] for a in shell.json("action", "list")] == ["a/one", "a/two", "b/one"]
    assert [a["name"] for a in shell.json("action", "list", "/b")] == ["b/one"]
    assert "a/two" in shell.run("action", "list").stdout
    copy = tmp_path / "copy.py"
    assert "python:3" in shell.run("action", "get", "/a/one", "--save-as", str(copy)).stdout
    assert copy.read_text() == CODE
    assert shell.json("action", "delete", "a/one") == {"name": "a/one", "deleted": True}
    assert shell.run("action", "get", "a/one", code=1).stderr == "error: no action a/one\n"
    assert shell.run("action", "delete", "a/one", code=1).stdout == ""


def test_invoke_without_waiting_prints_the_activation(shell: Shell) -> None:
    shell.services.submitted.clear()
    assert shell.run("action", "invoke", "hello", "-p", "a", "1").stdout == "id-1\n"
    told = shell.json("action", "invoke", "hello", "--key", "k")
    assert told == {"activation_id": "id-2"}
    first, second = shell.services.submitted
    assert (first.action, json.loads(first.payload)) == ("default/hello", {"a": 1})
    assert (first.idempotency_key, second.idempotency_key) == ("", "k")
    assert "nobody waits" in shell.run("action", "invoke", "hello", "-t", "5", code=2).stderr
    assert "without -b" in shell.run("action", "invoke", "hello", "-b", "--key", "k", code=2).stderr


def test_activations(shell: Shell) -> None:
    told = shell.json("activation", "get", "0190-7")
    assert (told["state"], told["status"], told["attempts"]) == ("done", "success", 2)
    assert (told["result"], told["run_ms"]) == ({"hello": "Ada"}, 5.0)
    assert "0190-7" in shell.run("activation", "get", "0190-7").stdout
    assert json.loads(shell.run("activation", "result", "0190-7").stdout) == {"hello": "Ada"}
    assert "no activation" in shell.run("activation", "get", "x", code=1).stderr
    (listed,) = shell.json("activation", "list", "hello")
    assert (listed["id"], listed["action"]) == ("0190-7", "default/hello")
    assert "result" not in listed
    assert "default/hello" in shell.run("activation", "list").stdout
    assert "no activations" in shell.run("activation", "list", "-n", "other").stderr


def test_the_queue(shell: Shell) -> None:
    told = shell.json("queue", "status")
    assert told["dead"] == 1
    assert told["waiting"][0]["waiting"] == 3
    assert "default/hello" in shell.run("queue", "status").stdout
    assert shell.json("queue", "dead")[0]["reason"] == "lost"
    assert "0190-9" in shell.run("queue", "dead").stdout
    for wanted in (("0190-9",), ("--action", "a/b"), ("--all",)):
        assert shell.json("queue", "redrive", *wanted) == ["0190-9"]
    assert "not given up" in shell.run("queue", "redrive", "0190-9", "x", code=1).stderr
    shell.run("queue", "redrive", code=2)
    shell.run("queue", "redrive", "x", "--all", code=2)


def test_invoke(shell: Shell, tmp_path: Path) -> None:
    arguments = tmp_path / "arguments.json"
    arguments.write_text('{"a": 1, "b": 2}')
    only = ("action", "invoke", "hello", "-r", "-P", str(arguments), "-p", "b", "[3]")
    result = shell.run(*only)
    assert json.loads(result.stdout) == {"a": 1, "b": [3]}
    assert result.stderr == ""
    record = shell.json("action", "invoke", "/_/hello", "-b", "--param", "x", "y")
    assert record == {
        "activation_id": "0190-1",
        "result": {"x": "y"},
        "container_id": "c-1",
        "wait_ms": 0.0,
        "run_ms": 12.0,
    }
    assert shell.services.invoked[-1].action == "default/hello"


@pytest.mark.parametrize("flag", ["-b", "-r"])
def test_an_error_of_the_action(shell: Shell, flag: str) -> None:
    result = shell.run("action", "invoke", "raises", flag, code=3)
    assert result.stderr == "error: ValueError: no\n"
    printed = json.loads(result.stdout)
    error = {"error": "ValueError: no"}
    expected = {"activation_id": "0190-1", "application_error": error, "status": 502}
    assert printed == (error if flag == "-r" else expected)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("action", "invoke", "busy", "-b"), 4, "the wait queue is full (try again in 1.5 s)"),
        (("action", "invoke", "none", "-b"), 1, "no action default/none"),
        (("action", "invoke", "late", "-b", "-t", "100"), 4, "no outcome within"),
        (("action", "invoke", "a/b/c", "-b"), 1, "is no action's name"),
        (("action", "invoke", "hello", "-P", "/no/such"), 1, "No such file"),
        (("action", "create", "x", "/no/such.py"), 1, "No such file"),
        (("action", "create", "x", "/etc/hostname"), 1, "neither a .py nor a .zip"),
        (("action", "invoke", "hello", "-p", "key"), 2, "takes two values"),
        (("action", "invoke"), 2, "Missing argument"),
        (("action", "list", "-o", "yaml"), 2, "yaml"),
        (("cluster", "status", "--endpoint", "127.0.0.1:1"), 4, "nobody answers at 127.0.0.1:1"),
    ],
)
def test_mistakes(shell: Shell, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = shell.run(*arguments, code=code)
    assert message in result.stderr
    assert result.stdout == ""


def test_trouble_is_shown_with_its_action(shell: Shell) -> None:
    shell.run("action", "create", "hello", str(shell.file))
    assert shell.json("action", "get", "hello")["trouble"] is None
    trouble = Trouble(failures=3, reason="no space left on device")
    trouble.age.FromMilliseconds(1500)
    trouble.pause.FromMilliseconds(2250)
    shell.services.troubles["default/hello"] = trouble
    assert shell.json("action", "get", "hello")["trouble"] == {
        "failures": 3,
        "reason": "no space left on device",
        "age_seconds": 1.5,
        "pause_seconds": 2.25,
    }
    assert "no space left" in shell.run("action", "get", "hello").stdout


def test_containers_that_ended(shell: Shell) -> None:
    (crashed, drained) = shell.json("container", "list", "--ended")
    assert crashed == {
        "id": "c-9",
        "action": "default/hello",
        "revision": 7,
        "crashed": True,
        "served_seconds": 0.5,
        "ended_at": "1970-01-01T00:00:01Z",
        "reason": "it ended by itself: SIGKILL",
    }
    assert (drained["crashed"], drained["served_seconds"]) == (False, None)
    of_one = shell.json("container", "list", "--ended", "--action", "a/b")
    assert [e["id"] for e in of_one] == ["c-8"]
    assert "SIGKILL" in shell.run("container", "list", "--ended").stdout
    assert [e["id"] for e in shell.json("container", "list")] == ["c-1"]


def test_numbers_of_containers(shell: Shell) -> None:
    given = ("--containers-min", "2", "--containers-max", "20", "--keep-warm", "1.5m")
    made = shell.json("action", "create", "hello", str(shell.file), *given)
    numbers = ("containers_min", "containers_max", "keep_warm_ms")
    assert [made[key] for key in numbers] == [2, 20, 90_000]
    kept = shell.json("action", "update", "hello", "-c", "5")
    assert [kept[key] for key in numbers] == [2, 20, 90_000]
    shell.run("action", "update", "hello", "--containers-max", "0", "--keep-warm", "default")
    assert [shell.json("action", "get", "hello")[key] for key in numbers] == [2, None, None]
    assert "containers_min" in shell.run("action", "list").stdout
    for flag, value in (("--keep-warm", "90"), ("--containers-min", "-1")):
        refused = shell.run("action", "update", "hello", flag, value, code=1)
        assert flag in refused.stderr


@pytest.mark.parametrize(("flag", "value"), [("-c", "-1"), ("-c", "1001"), ("-m", "99999999999")])
def test_limits_out_of_range(shell: Shell, flag: str, value: str) -> None:
    shell.run("action", "create", "hello", str(shell.file), flag, value, code=1)


def test_what_a_terminal_cannot_show_is_escaped(shell: Shell) -> None:
    half = r'"\ud800"'
    shell.run("action", "create", "hello", str(shell.file), "-p", "half", half)
    assert shell.json("action", "get", "hello")["parameters"] == {"half": "\ud800"}
    assert half in shell.run("action", "get", "hello").stdout


def test_watching_without_a_terminal(shell: Shell) -> None:
    lines = shell.run("cluster", "watch", "--count", "1").stdout.splitlines()
    assert lines[0].startswith("test: m1 at ")
    assert lines[-1] == ""


def test_the_log_of_a_container(shell: Shell) -> None:
    printed = shell.run("container", "logs", "c-1", "--activation", "a-1", "-n", "5").stdout
    assert printed == "c-1 a-1 5\n[ä]\n"
    assert shell.json("container", "logs", "c-1") == ["c-1  1000", "[ä]"]


def test_cluster_and_containers(shell: Shell) -> None:
    status = shell.json("cluster", "status")
    assert (status["leader"], status["term"]) == ("m1", "1.42")
    assert status["routers"][0]["demand"] == {"default/hello": {"waiting": 3, "idle": 0}}
    one = shell.json("container", "list", "--action", "hello")[0]
    assert (one["state"], one["granted"], one["routers"]) == ("ready", 7, {"r1": 6, "inc-2": 1})
    assert shell.json("container", "list", "--action", "other") == []
    assert "r1:6 inc-2:1" in shell.run("container", "list").stdout
    assert "r1:6 inc-2:1" in shell.run("cluster", "status").stdout


def test_watch(shell: Shell) -> None:
    # The server ends the stream after three: the watch begins anew.
    lines = shell.run("cluster", "watch", "-o", "json", "--count", "4").stdout.splitlines()
    assert [json.loads(line)["term"] for line in lines] == ["1.42"] * 4
    assert "m1 at 127.0.0.1:7000 leads" in shell.run("cluster", "watch", "--count", "1").stdout


def test_help_has_examples_and_exit_codes(shell: Shell) -> None:
    for group in (action, cluster, container):
        name = group.__name__.rpartition(".")[2]
        for command in group.app.registered_commands:
            verb = command.name or command.callback.__name__
            text = shell.run(name, verb, "--help").stdout
            assert f"slotway {name} {verb}" in text
            assert "3 the action's own code failed" in text


@pytest.mark.parametrize(
    ("given", "full"),
    [("x", "default/x"), ("/ns/x", "ns/x"), ("ns/x", "ns/x"), ("/_/x", "default/x")],
)
def test_names(given: str, full: str) -> None:
    assert full_name(given) == full


@pytest.mark.parametrize("given", ["", "/x", "a/b/c", "-x", "a b", "ns/", "x" * 65])
def test_names_out_of_pattern(given: str) -> None:
    with pytest.raises(SlotwayError):
        full_name(given)
