"""Reads the configuration from flags, variables and one TOML file, and explains its mistakes."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from slotway.config import (
    EtcdConfig,
    LogConfig,
    ManagerConfig,
    ManagerSection,
    Name,
    RouterConfig,
    RouterSection,
)
from slotway.errors import SlotwayError

PREFIX = "SLOTWAY_"
_FLAGS: Mapping[tuple[str | int, ...], str] = {
    ("etcd", "endpoints"): "--etcd",
    ("log", "level"): "--log-level",
    ("log", "format"): "--log-format",
}
"""Flags that are not named like the key."""
OTHER_VARIABLES = frozenset({"SLOTWAY_CONFIG", "SLOTWAY_ENDPOINT"})
C = TypeVar("C", ManagerConfig, RouterConfig)
Flags = Mapping[str, Any]
Path_ = tuple[str | int, ...]


class ConfigError(SlotwayError):
    """The configuration has mistakes; the message has one line for each."""

    reason = "INVALID_FIELD"


class Settings(BaseSettings):
    """The whole configuration: what the file looks like."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        enable_decoding=False,
        extra="forbid",
        hide_input_in_errors=True,
    )

    cluster: Name = "default"
    etcd: EtcdConfig = Field(default_factory=EtcdConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    manager: ManagerSection = Field(default_factory=ManagerSection)
    router: RouterSection = Field(default_factory=RouterSection)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then variables, then the file: `load` gives both of these in one argument."""
        assert isinstance(init_settings, InitSettingsSource)
        given = init_settings.init_kwargs
        return (
            InitSettingsSource(settings_cls, given["flags"]),
            env_settings,
            InitSettingsSource(settings_cls, given["file"]),
        )


def load(kind: type[C], flags: Flags, path: Path | None) -> C:
    """The configuration of one part. `flags` is shaped like the file, with what was given only.

    Raises ConfigError.
    """
    whole = read(flags, path)
    section = whole.manager if issubclass(kind, ManagerConfig) else whole.router
    shared = {"cluster": whole.cluster, "etcd": whole.etcd, "log": whole.log}
    return kind.model_validate({**shared, **dict(section)})


def read(flags: Flags, path: Path | None) -> Settings:
    """The whole configuration. Raises ConfigError."""
    text, file = "", {}
    if path is not None:
        try:
            text = path.read_text("utf-8")
            file = tomllib.loads(text)
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{path}: cannot be read: {exc}") from exc
        except tomllib.TOMLDecodeError as exc:
            raise ConfigError(f"{path}: not TOML: {exc}") from exc
    try:
        return Settings(flags=flags, file=file)  # type: ignore[call-arg]
    except ValidationError as exc:
        lines = _lines(text)
        mistakes = sorted(_explain(error, flags, file, f"{path}", lines) for error in exc.errors())
        raise ConfigError("\n".join(text for _, text in mistakes)) from exc


def _explain(
    error: ErrorDetails,
    flags: Flags,
    file: Mapping[str, Any],
    path: str,
    lines: Mapping[Path_, int],
) -> tuple[int, str]:
    """A line about one mistake: where it was made, what is wrong, what was probably meant."""
    where = error["loc"]
    name = ".".join(map(str, where))
    line = 0
    if _has(flags, where):
        source = _FLAGS.get(where[:2]) or f"--{str(where[-1]).replace('_', '-')}"
    elif variable := _variable(where):
        source = variable
    else:
        line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), 0)
        source = f"{path}:{line}" if line else (path if _has(file, where) else "configuration")
    if error["type"] == "extra_forbidden":
        what = "there is no such key"
        known = _keys(where[:-1])
        if near := difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5):
            what += f"; did you mean `{near[0]}`?"
        else:
            what += f"; there are: {', '.join(sorted(known))}"
    else:
        what = error["msg"].removeprefix("Value error, ")
    return line, f"{source}: {name}: {what}"


def _variable(where: Path_) -> str:
    """The variable that sets this path, if it is set."""
    name = (PREFIX + "_".join(str(part) for part in where[:2])).upper()
    if os.environ.get(name):
        return name
    if len(where) == 1:  # the mistake is of a whole section: name all that set part of it
        return ", ".join(sorted(one for one in os.environ if one.startswith(f"{name}_")))
    return ""


def _has(tree: object, where: Path_) -> bool:
    for part in where:
        if not isinstance(tree, Mapping) or part not in tree:
            return isinstance(tree, list | tuple) and isinstance(part, int)
        tree = tree[part]
    return bool(where)


def _keys(where: Path_) -> list[str]:
    """The keys that a section has."""
    model: type[BaseModel] = Settings
    for part in where:
        kind = model.model_fields[str(part)].annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        model = kind
    return list(model.model_fields)


_SECTION = re.compile(r"\s*\[\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"\s*([\w.-]+)\s*=")


def _lines(text: str) -> dict[Path_, int]:
    """Where keys and sections stand; those in unusual notation are left out."""
    section: Path_ = ()
    found: dict[Path_, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if match := _SECTION.match(line):
            section = tuple(match[1].split("."))
            found.setdefault(section, number)
        elif match := _KEY.match(line):
            found.setdefault((*section, *match[1].split(".")), number)
    return found


def unknown_variables() -> Iterator[str]:
    """`SLOTWAY_*` variables that mean nothing: probably misspelt."""
    sections = Settings.model_fields
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES:
            head = name.removeprefix(PREFIX).lower().split("_", 1)[0]
            if head not in sections:
                yield name
