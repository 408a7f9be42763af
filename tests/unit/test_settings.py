"""Where settings come from, which of them wins, and how mistakes are told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slotway.cli.config import app
from slotway.cli.settings import ConfigError, load, read, unknown_variables
from slotway.config import ManagerConfig, RouterConfig, is_loopback, split_address
from slotway.endpoints import split_endpoint

FILE = """\
cluster = "from-file"

[etcd]
endpoints = ["a:1", "b:2"]

[manager]
containers_max = 1
keep_warm = "90s"
listen = "127.0.0.1:1"

[router]
queue_max = 7
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("SLOTWAY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "slotway.toml"
    path.write_text(FILE)
    return path


def mistakes(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as info:
        read({}, path)
    return [one.removeprefix(f"{path}:") for one in str(info.value).splitlines()]


def test_defaults_suffice() -> None:
    config = load(ManagerConfig, {}, None)
    assert config.etcd.endpoints == ("127.0.0.1:2379",)
    assert config.driver == "process"
    assert config == ManagerConfig()


def test_flags_win_over_variables_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOTWAY_MANAGER_CONTAINERS_MAX", "2")
    monkeypatch.setenv("SLOTWAY_MANAGER_KEEP_WARM", "2m")
    monkeypatch.setenv("SLOTWAY_ETCD_ENDPOINTS", "c:3, d:4")
    monkeypatch.setenv("SLOTWAY_ETCD_PASSWORD", "")
    config = load(ManagerConfig, {"manager": {"containers_max": 3}}, file)
    assert config.containers_max == 3
    assert config.keep_warm == timedelta(minutes=2)
    assert config.listen == "127.0.0.1:1"
    assert config.etcd.endpoints == ("c:3", "d:4")
    assert config.cluster == "from-file"
    assert load(RouterConfig, {}, file).queue_max == 7


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path / "f.toml",
        'clutser = "x"\n[manager]\nkeep_warm = 30\nlease = "1s"\n'
        'containers_max = "many"\n[router]\nlisten = "nowhere"\nque_max = 5\n',
    )
    assert found == [
        "1: clutser: there is no such key; did you mean `cluster`?",
        '3: manager.keep_warm: not a duration: write a number and a unit, as in "500ms", "30s" '
        'or "5m"',
        "4: manager.lease: Input should be greater than or equal to 2 seconds",
        "5: manager.containers_max: Input should be a valid integer, unable to parse string as an "
        "integer",
        '7: router.listen: not an address: write host:port, as in "127.0.0.1:7070"',
        "8: router.que_max: there is no such key; did you mean `queue_max`?",
    ]


def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in mistakes(tmp_path / "f.toml", 'cluster = "x"\n[etcd\n')[0]


def test_a_file_that_is_absent_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read({}, tmp_path / "absent.toml")


def test_a_wrong_variable_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOTWAY_ROUTER_QUEUE_MAX", "0")
    monkeypatch.setenv("SLOTWAY_MANAGER_LITSEN", "127.0.0.1:1")
    with pytest.raises(ConfigError) as info:
        read({}, file)
    first, second = sorted(str(info.value).splitlines())
    assert first.startswith("SLOTWAY_MANAGER_LITSEN: manager.litsen: there is no such key; did you")
    assert second.startswith("SLOTWAY_ROUTER_QUEUE_MAX: router.queue_max: Input should be greater")


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--listen: router\.listen: not an address"):
        load(RouterConfig, {"router": {"listen": "x"}}, None)
    with pytest.raises(ConfigError, match=r"^--log-level: log\.level: "):
        load(RouterConfig, {"log": {"level": "loud"}}, None)


def test_a_wider_address_needs_insecure(tmp_path: Path) -> None:
    found = mistakes(tmp_path / "f.toml", '[router]\nlisten = "192.0.2.1:1"\n')
    assert found[0].startswith("1: router: `listen` 192.0.2.1:1 is not loopback")
    wide = {"listen": "0.0.0.0:1", "insecure": True}
    with pytest.raises(ConfigError, match="set `advertise`"):
        load(RouterConfig, {"router": wide}, None)
    config = load(RouterConfig, {"router": {**wide, "advertise": "r1:1"}}, None)
    assert config.listen == "0.0.0.0:1"


def test_the_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOTWAY_ETCD_PASSWORD", "hunter2")
    with pytest.raises(ConfigError, match="`password` needs `user`") as info:
        load(RouterConfig, {}, None)
    assert "hunter2" not in str(info.value)
    monkeypatch.setenv("SLOTWAY_ETCD_USER", "me")
    config = load(RouterConfig, {}, None)
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(config.etcd.access())
    assert config.etcd.access().password == "hunter2"


def test_what_is_no_endpoint(tmp_path: Path) -> None:
    for endpoint in ("ftp://h:1", "h:port", "http://h:1/path", "http://", "u:p@h:1", "[::1"):
        (told,) = mistakes(tmp_path / "f", f'[etcd]\nendpoints = ["h:1", "{endpoint}"]\n')
        assert f"etcd endpoint '{endpoint}' is not host:port" in told
    (told,) = mistakes(tmp_path / "f", "[etcd]\nendpoints = []\n")
    assert told.startswith("2: etcd.endpoints: ")


def test_endpoints() -> None:
    assert split_endpoint("h") == ("", "h:2379")
    assert split_endpoint("http://h:1/") == ("http", "h:1")
    assert split_endpoint("https://[::1]:5") == ("https", "[::1]:5")


def test_half_a_certificate_and_unreadable_files(tmp_path: Path) -> None:
    assert "belong together" in mistakes(tmp_path / "f", '[etcd]\ncert = "/etc/passwd"\n')[0]
    assert "/absent cannot be read" in mistakes(tmp_path / "f", '[etcd]\nca = "/absent"\n')[0]


def test_variables_that_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOTWAY_ENDPOINT", "x")
    monkeypatch.setenv("SLOTWAY_ROUTR_NAME", "x")
    assert list(unknown_variables()) == ["SLOTWAY_ROUTR_NAME"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [("h:1", ("h", 1)), ("[::1]:2", ("::1", 2)), ("127.0.0.1:0", ("127.0.0.1", 0))],
)
def test_addresses(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize("text", ["", "h", ":1", "h:", "::1:2", "h:65536", "h:-1", "h:٣"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(text)


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org")))


def test_the_command(file: Path) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["check", str(file)])
    assert good.exit_code == 0
    assert "no mistakes" in good.output
    file.write_text("[etcdd]\n")
    bad = runner.invoke(app, ["check", str(file)])
    assert bad.exit_code == 1
    assert "did you mean `etcd`?" in bad.output


def test_docker_subnets_that_overlap() -> None:
    flags = {"docker_subnet": "10.0.0.0/16", "docker_out_subnet": "10.0.9.0/24"}
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/16 and `docker_out_subnet`.*overlap"):
        load(ManagerConfig, {"manager": flags}, None)
    settings = load(ManagerConfig, {"manager": flags | {"docker_out_subnet": "10.1.0.0/24"}}, None)
    assert settings.docker_options() == {"subnet": "10.0.0.0/16", "out_subnet": "10.1.0.0/24"}
