"""`slotway action …`: creates, changes, reads and runs actions, with wsk's flags."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from slotway.cli.limits import (
    Concurrency,
    ContainersMax,
    ContainersMin,
    KeepWarm,
    Memory,
    Timeout,
    limit,
    limit_containers,
)
from slotway.cli.options import ActionName, Endpoint, Format, Output, full_name
from slotway.cli.parameters import ParameterFile, Parameters, ParametersCommand, read
from slotway.cli.report import EXIT_CODES, as_json, print_json, print_table, reporting, say
from slotway.cli.runtimes import Concurrent, Docker, Network, choose, is_text
from slotway.errors import SlotwayError

CODE_BYTES_MAX = 16 * 1024 * 1024
_KIND = "python:3"

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Create, change, read and run actions."
)

Kind = Annotated[
    str | None,
    typer.Option("--kind", help=f"The runtime; {_KIND} if not given.", show_default=False),
]
Main = Annotated[
    str | None,
    typer.Option("--main", help="The function to call; main if not given.", show_default=False),
]
_FILE_HELP = "The code: a .py file, or a .zip with a __main__.py."


@app.command(cls=ParametersCommand, epilog=EXIT_CODES)
def create(
    name: ActionName,
    file: Annotated[
        Path | None,
        typer.Argument(help=_FILE_HELP + " Left out with --docker at will.", show_default=False),
    ] = None,
    kind: Kind = None,
    docker: Docker = None,
    concurrent: Concurrent = None,
    network: Network = None,
    main: Main = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    memory: Memory = None,
    containers_min: ContainersMin = None,
    containers_max: ContainersMax = None,
    keep_warm: KeepWarm = None,
    param: Parameters = None,
    param_file: ParameterFile = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Creates an action; it is an error if there is one of this name.

    Examples:
      slotway action create hello hello.py
      slotway action create hello hello.py --concurrency 10 --timeout 5000 --memory 128
      slotway action create /team/report report.zip --main run -p level 3 -p user '{"id": 7}'
      slotway action create model --docker registry.example/model:4 --memory 1024
    """
    from slotway.aio import Action, CallError
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        action = Action(name=full_name(name))
        choose(action, kind, docker, concurrent, network)
        if file is None and not action.exec.image:
            raise SlotwayError(
                "name a file with the code, or an image with --docker", reason="INVALID_FIELD"
            )
        code = _read_code(action, file) if file is not None else None
        _change(action, kind, main, read(param, param_file))
        limit(action.limits, concurrency, timeout, memory)
        limit_containers(action.limits, containers_min, containers_max, keep_warm)
        try:
            put = client.replace_action(action, code, expected_revision=0)
        except CallError as error:
            if error.reason != "REVISION_CONFLICT":
                raise
            raise SlotwayError(
                f"{action.name} exists already: change it with `slotway action update`",
                reason=error.reason,
            ) from error
    _print_put(put, "created", output)


@app.command(cls=ParametersCommand, epilog=EXIT_CODES)
def update(
    name: ActionName,
    file: Annotated[
        Path | None, typer.Argument(help=_FILE_HELP + " Without it the code stays.")
    ] = None,
    kind: Kind = None,
    docker: Docker = None,
    concurrent: Concurrent = None,
    network: Network = None,
    main: Main = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    memory: Memory = None,
    containers_min: ContainersMin = None,
    containers_max: ContainersMax = None,
    keep_warm: KeepWarm = None,
    param: Parameters = None,
    param_file: ParameterFile = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Changes what is given of an action, and leaves the rest; with a file, creates it if need be.

    Containers of the former revision finish what they run. Default arguments are replaced as a
    whole.

    Examples:
      slotway action update hello hello.py
      slotway action update hello --concurrency 200
      slotway action update hello --containers-min 2 --containers-max 20 --keep-warm 10m
      slotway action update hello -p greeting Hi
    """
    from slotway.aio import Action, CallError
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        action = Action(name=full_name(name))
        try:
            action = client.get_action(action.name)
        except CallError as error:
            if error.reason != "ACTION_NOT_FOUND" or (file is None and docker is None):
                raise
        choose(action, kind, docker, concurrent, network)
        code = _read_code(action, file) if file is not None else None
        _change(action, kind, main, read(param, param_file))
        limit(action.limits, concurrency, timeout, memory)
        limit_containers(action.limits, containers_min, containers_max, keep_warm)
        try:
            put = client.replace_action(action, code, expected_revision=action.revision)
        except CallError as error:
            if error.reason != "REVISION_CONFLICT":
                raise
            raise SlotwayError(
                f"{action.name} was changed by someone else meanwhile: look, and try again",
                reason=error.reason,
            ) from error
    _print_put(put, "updated", output)


@app.command(epilog=EXIT_CODES)
def get(
    name: ActionName,
    save: Annotated[
        Path | None,
        typer.Option("--save-as", metavar="FILE", help="Also write its code to this file."),
    ] = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Shows one action, and what goes wrong with its containers ("trouble"), if anything does.

    Examples:
      slotway action get hello
      slotway action get /team/report -o json
      slotway action get hello --save-as hello.py
    """
    from slotway.cli import describe
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        action = client.get_action(full_name(name))
        trouble = client.get_trouble(action.name)
        if save is not None:
            if not action.exec.code_bytes:
                raise SlotwayError(
                    f"{action.name} has no code beside its image, {action.exec.image}",
                    reason="INVALID_FIELD",
                )
            save.write_bytes(client.get_code(action.name))
            say(f"wrote the code to {save}")
    shown = describe.action(action)
    shown["trouble"] = None if trouble is None else describe.trouble(trouble)
    if output is Format.JSON:
        print_json(shown)
        return
    if shown["trouble"] is not None:
        shown["trouble"] = as_json(shown["trouble"])
    shown["parameters"] = as_json(shown["parameters"], indent=None)
    print_table(("field", "value"), [(key, _cell(value)) for key, value in shown.items()])


@app.command(name="list", epilog=EXIT_CODES)
def list_(
    namespace: Annotated[
        str, typer.Argument(help="Only actions of this namespace.", show_default=False)
    ] = "",
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Lists actions, by name.

    Examples:
      slotway action list
      slotway action list team -o json
    """
    from slotway.cli import describe
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        found = [describe.action(a) for a in client.list_actions(namespace.strip("/"))]
    if output is Format.JSON:
        print_json(found)
        return
    columns = (
        *("name", "revision", "kind", "concurrency", "timeout_ms", "memory_mib"),
        *("containers_min", "containers_max", "keep_warm_ms"),
    )
    print_table(columns, [[_cell(action[column]) for column in columns] for action in found])


@app.command(epilog=EXIT_CODES)
def delete(name: ActionName, output: Output = Format.TABLE, endpoint: Endpoint = None) -> None:
    """Deletes an action; its containers finish what they run.

    Examples:
      slotway action delete hello
    """
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        full = full_name(name)
        client.delete_action(full)
    if output is Format.JSON:
        print_json({"name": full, "deleted": True})
    else:
        say(f"deleted {full}")


@app.command(cls=ParametersCommand, epilog=EXIT_CODES)
def invoke(
    name: ActionName,
    param: Parameters = None,
    param_file: ParameterFile = None,
    blocking: Annotated[
        bool, typer.Option("--blocking", "-b", help="Wait for the outcome.")
    ] = False,
    result: Annotated[
        bool,
        typer.Option("--result", "-r", help="Print only what the action returned; implies -b."),
    ] = False,
    timeout: Annotated[
        int | None,
        typer.Option(
            "--timeout",
            "-t",
            metavar="MS",
            help="How long to wait for the outcome, in milliseconds.",
            show_default=False,
            min=1,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            help="Without -b: the same key is the same activation, so that you may repeat it.",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Runs an action: with -b once, and prints its outcome; without, it is kept and run in a while.

    Without -b the answer is the activation's id, once the invocation is on disk: see
    `slotway activation`. It is run at least once, and one outcome is recorded.

    Examples:
      slotway action invoke hello -p name Ada
      slotway action invoke hello -b -r -p name Ada
      slotway action invoke hello -b -P arguments.json -o json
      slotway action invoke /team/report -r -p ids '[1, 2]' --timeout 5000
    """
    from slotway.aio import ApplicationError
    from slotway.cli.connection import connected

    if not (blocking or result):
        if timeout is not None:
            raise typer.BadParameter("--timeout is for -b: nobody waits for the outcome")
        with connected(endpoint) as client:
            id = client.submit(full_name(name), read(param, param_file) or {}, key=key or "")
        if output is Format.JSON:
            print_json({"activation_id": id})
        else:
            print(id)
        return
    if key is not None:
        raise typer.BadParameter("--key is for invocations without -b")
    with reporting(), connected(endpoint) as client:
        try:
            activation = client.invoke(
                full_name(name),
                read(param, param_file) or {},
                timeout=None if timeout is None else timeout / 1000,
            )
        except ApplicationError as error:
            outcome: dict[str, Any] = {
                "activation_id": error.activation_id,
                "application_error": error.error,
                "status": error.status,
            }
            print_json(error.error if result else outcome)
            raise
    if result:
        print_json(activation.result)
        return
    shown = {
        "activation_id": activation.id,
        "result": activation.result,
        "container_id": activation.container_id,
        "wait_ms": round(activation.wait.total_seconds() * 1000, 3),
        "run_ms": round(activation.run.total_seconds() * 1000, 3),
    }
    if output is Format.JSON:
        print_json(shown)
        return
    shown["result"] = as_json(shown["result"])
    print_table(("field", "value"), list(shown.items()))


def _read_code(action: Any, file: Path) -> bytes:
    """The code, checked as far as a client can; says in `action` what kind of code it is."""
    code = file.read_bytes()
    binary = file.suffix == ".zip"
    if len(code) > CODE_BYTES_MAX:
        raise SlotwayError(f"{file} is larger than 16 MiB", reason="REQUEST_TOO_LARGE")
    if action.exec.image:
        # What the image takes is its own affair.
        action.exec.binary = binary or not is_text(code)
        return code
    if not binary and file.suffix != ".py":
        raise SlotwayError(f"{file} is neither a .py nor a .zip file", reason="INVALID_FIELD")
    if binary:
        try:
            names = zipfile.ZipFile(io.BytesIO(code)).namelist()
        except zipfile.BadZipFile as error:
            raise SlotwayError(f"{file} is no zip archive", reason="INVALID_FIELD") from error
        if "__main__.py" not in names:
            raise SlotwayError(f"{file} has no __main__.py at its top", reason="INVALID_FIELD")
    action.exec.binary = binary
    return code


def _change(
    action: Any, kind: str | None, main: str | None, parameters: dict[str, Any] | None
) -> None:
    """Sets what was given."""
    if kind is not None or not action.exec.kind:
        action.exec.kind = kind or _KIND
    if main is not None:
        action.exec.main = main
    if parameters is not None:
        action.parameters = json.dumps(parameters).encode()


def _cell(value: object) -> object:
    """What a table shows: a dash where the cluster's own setting holds."""
    return "-" if value is None else value


def _print_put(action: Any, what: str, output: Format) -> None:
    from slotway.cli import describe

    if output is Format.JSON:
        print_json(describe.action(action))
    else:
        say(f"{what} {action.name}, revision {action.revision}")
