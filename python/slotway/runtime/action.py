"""The state of one container: not initialised, then one action for good, run up to C times at once.

Nothing that the action does ends the container, short of ending the process: errors of every class
become answers. The runtime admits all that comes unless it is told a limit of its own; who sends
too much must be visible to the action.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .activation import Activation, current
from .code import CodeError, Function, describe, read
from .output import OutputStream

Answer = tuple[int, bytes]
"""HTTP status and JSON body."""


class Action:
    """The action of this container. All methods belong to the loop's thread."""

    def __init__(
        self, capacity: int, limit: int, outputs: tuple[OutputStream, OutputStream] | tuple[()]
    ) -> None:
        """`capacity` is C, or more if `/init` tells C; `limit` refuses what exceeds it with 429,
        0: nothing; `outputs` are to be finished."""
        self._capacity, self._alone = capacity, True
        self._limit = limit
        self._outputs = outputs
        self._function: Function | None = None
        self._plain = True
        self._begun = False
        self._running = 0
        self._pid = os.getpid()
        # More than C, so that the pool never hides that more than C were sent.
        self.pool = ThreadPoolExecutor(max(32, 2 * capacity + 16), thread_name_prefix="action")

    async def init(self, body: bytes) -> Answer:
        """`/init`: loads the code, once. A failure is final too, because half of the code may have
        run."""
        if self._begun:
            return 403, _error("Cannot initialize the action more than once.")
        try:
            value = json.loads(body)["value"]
            self._alone = value.get("concurrency", self._capacity) == 1
            environment = {str(key): _text(each) for key, each in (value.get("env") or {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return 400, _error('expected {"value": {"name", "main", "code", "binary", "env"}}')
        self._begun = True
        _set_environment(environment)
        try:
            code = read(value)
            self._plain = not code.is_async()
            load: Callable[[], Function] = code.load
            if self._plain:
                self._function = await asyncio.get_running_loop().run_in_executor(self.pool, load)
            else:
                self._function = load()
        except CodeError as error:
            print(error, file=sys.stderr)
            return 502, _error(str(error))
        finally:
            self._finish(current.get())
        return 200, b'{"ok":true}'

    async def run(self, body: bytes) -> Answer:
        """`/run`: calls the function with `value` and answers with the JSON object that it
        returns."""
        function = self._function
        if function is None:
            return 403, _error("The action is not initialized.")
        if self._limit and self._running >= self._limit:
            return 429, _error(f"More than {self._limit} activations at once.")
        try:
            request = json.loads(body)
            arguments = request.get("value", {})
        except (ValueError, AttributeError, RecursionError):
            return 400, _error('expected {"value": {...}, ...}')
        if not isinstance(arguments, dict):
            return 400, _error("value must be an object")
        activation = Activation.of(request)
        current.set(activation)  # This task's own context.
        if self._alone:
            _set_environment(
                {f"__OW_{key.upper()}": _text(each) for key, each in activation.fields.items()}
            )
        self._running += 1
        try:
            return await self._call(function, arguments)
        finally:
            self._running -= 1
            self._finish(activation)

    async def _call(self, function: Function, arguments: dict[str, object]) -> Answer:
        try:
            if self._plain:
                result = await self._in_thread(function, arguments)
            else:
                result = function(arguments)
            if inspect.isawaitable(result):
                result = await result
            if not isinstance(result, dict):
                return 502, _error("The action did not return a dictionary.")
            answer = 200, json.dumps(result, allow_nan=False, separators=(",", ":")).encode()
        except BaseException as error:
            # Also SystemExit, and a CancelledError: tasks of the action can reach each other.
            self._leave_if_forked(error)
            print(describe(error), file=sys.stderr)
            return 502, _error(_summary(error))
        self._leave_if_forked(None)
        return answer

    async def _in_thread(self, function: Function, arguments: dict[str, object]) -> object:
        """Calls the function on a worker, within this activation's context."""

        def call() -> tuple[object, BaseException | None]:
            # As a value, because a future cannot carry every exception (StopIteration).
            try:
                result, failure = function(arguments), None
            except BaseException as error:
                result, failure = None, error
            self._leave_if_forked(failure)
            return result, failure

        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        result, failure = await loop.run_in_executor(self.pool, context.run, call)
        if failure is not None:
            raise failure
        return result

    def _leave_if_forked(self, failure: BaseException | None) -> None:
        """Ends a process that the action forked and let return into the runtime: it must not answer
        a second time."""
        if os.getpid() == self._pid:
            return
        if failure is not None and not isinstance(failure, SystemExit):
            print(describe(failure), file=sys.stderr)
        code = failure.code if isinstance(failure, SystemExit) else failure and 1
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    def _finish(self, activation: Activation) -> None:
        for output in self._outputs:
            output.finish(activation)


def _error(message: str) -> bytes:
    return json.dumps({"error": message}, separators=(",", ":")).encode()


def _summary(error: BaseException) -> str:
    """An error in one line: the traceback goes to the log, as with OpenWhisk."""
    if isinstance(error, SystemExit):
        return f"The action called sys.exit({error.code!r})."
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _set_environment(variables: dict[str, str]) -> None:
    """Sets what the environment can hold."""
    for key, value in variables.items():
        if key and "=" not in key and "\0" not in key + value:
            os.environ[key] = value
