"""TLS, user and password on a real etcd."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slotway.etcd import Access, Client, EtcdError, EtcdUnavailable, Lease, Put
from slotway.etcd.server import EtcdServer, find

FAST = ("--unsafe-no-fsync", "--log-level=warn")


@dataclass(frozen=True)
class Certificates:
    ca: Path
    server: Path
    client: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """A CA of its own, and a certificate with key for each side (one file per side)."""
        ca = folder / "ca.pem"
        _openssl("req", "-x509", "-subj", "/CN=ca", "-keyout", f"{ca}.key", "-out", str(ca))
        pairs = {}
        for side, usage in (("server", "serverAuth,clientAuth"), ("client", "clientAuth")):
            pairs[side] = path = folder / f"{side}.pem"
            _openssl(
                *("req", "-x509", "-CA", str(ca), "-CAkey", f"{ca}.key", "-subj", f"/CN={side}"),
                *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", f"extendedKeyUsage={usage}"),
                *("-addext", "basicConstraints=critical,CA:FALSE"),
                *("-keyout", f"{path}.key", "-out", str(path)),
            )
        return cls(ca, pairs["server"], pairs["client"])


def _openssl(*arguments: str) -> None:
    subprocess.run(
        ["openssl", *arguments, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
        check=True,
        capture_output=True,
    )


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
async def test_tls_on_both_sides(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path)
    access = Access((), ca=str(made.ca), cert=str(made.client), key=f"{made.client}.key")
    server = EtcdServer(
        tmp_path / "data",
        tmp_path / "log",
        scheme="https",
        options=(
            *FAST,
            *(f"--cert-file={made.server}", f"--key-file={made.server}.key"),
            *(f"--trusted-ca-file={made.ca}", "--client-cert-auth"),
        ),
        access=access,
    )
    await server.start()
    try:
        for endpoint in (server.endpoint, server.endpoint.removeprefix("https://")):
            good = Access((endpoint,), ca=access.ca, cert=access.cert, key=access.key)
            async with Client(good) as client:
                assert await client.status()
        for bad in (
            Access((server.endpoint.replace("https", "http"),), timeout_s=0.5),
            Access((server.endpoint,), timeout_s=0.5),
            Access((server.endpoint,), ca=access.ca, timeout_s=0.5),
        ):
            async with Client(bad) as client:
                with pytest.raises(EtcdUnavailable, match=bad.endpoints[0]):
                    await client.txn(success=[Put("k", b"")])
    finally:
        await server.stop()


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    """An etcd where `slotway` may touch /slotway/ only; tokens last two seconds."""
    server = EtcdServer(tmp_path / "data", tmp_path / "log", options=(*FAST, "--auth-token-ttl=2"))
    await server.start()
    for command in (
        "user add root:secret",
        "user add slotway:pass:word",
        "user grant-role root root",
        "role add slotway",
        "role grant-permission slotway readwrite --prefix=true /slotway/",
        "user grant-role slotway slotway",
        "auth enable",
    ):
        await control(server, *command.split())
    yield server
    await server.stop()


async def control(server: EtcdServer, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(find("etcdctl"), f"--endpoints={server.endpoint}", *arguments),
        env={"ETCDCTL_API": "3"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output


def user(server: EtcdServer, password: str = "pass:word", name: str = "slotway") -> Access:
    return Access((server.endpoint,), user=name, password=password)


async def test_a_user_does_what_it_may(guarded: EtcdServer) -> None:
    async with Client(user(guarded)) as client:
        revision = (await client.txn(success=[Put("/slotway/k", b"")])).revision
        async with client.watch("/slotway/", revision) as watch, asyncio.timeout(5):
            assert (await anext(watch)).events[0].item.key == "/slotway/k"
        async with Lease(client, 10) as lease:
            await client.txn(success=[Put("/slotway/l", b"", lease.id)])
        with pytest.raises(EtcdError, match="permission denied"):
            await client.txn(success=[Put("/other", b"")])
        async with client.watch("/other", 1) as watch, asyncio.timeout(5):
            with pytest.raises(EtcdError, match="permission denied"):
                await anext(watch)


async def test_a_wrong_password_is_told_at_once(guarded: EtcdServer) -> None:
    async with Client(user(guarded, "wrong")) as client:
        with pytest.raises(EtcdError, match="authentication failed"):
            await client.get("/slotway/k")
        async with client.watch("/slotway/", 1) as watch, asyncio.timeout(5):
            with pytest.raises(EtcdError, match="authentication failed"):
                await anext(watch)
    async with Client(Access((guarded.endpoint,))) as client:
        with pytest.raises(EtcdError, match="user name is empty"):
            await client.get("/slotway/k")


async def test_a_token_that_is_void_is_renewed(guarded: EtcdServer) -> None:
    async with Client(user(guarded)) as client:
        revision = (await client.txn(success=[Put("/slotway/k", b"1")])).revision
        # Any change of the users makes all tokens old.
        await control(guarded, "--user=root:secret", "user", "add", "another:x")
        await client.txn(success=[Put("/slotway/k", b"2")])
        client._connection._token = "nonsense.1"
        await client.txn(success=[Put("/slotway/k", b"3")])
        client._connection._token = "nonsense.1"
        async with client.watch("/slotway/", revision) as watch, asyncio.timeout(10):
            values: list[bytes] = []
            while len(values) < 3:
                values += [one.item.value for one in (await anext(watch)).events]
        assert values == [b"1", b"2", b"3"]


async def test_a_restart_forgets_the_tokens_and_nothing_is_noticed(guarded: EtcdServer) -> None:
    async with Client(user(guarded)) as client:
        revision = (await client.txn(success=[Put("/slotway/k", b"1")])).revision
        async with client.watch("/slotway/", revision + 1) as watch, asyncio.timeout(20):
            waiting = asyncio.ensure_future(anext(watch))
            await guarded.stop()
            guarded.access = user(guarded)
            await guarded.start()
            await client.txn(success=[Put("/slotway/k", b"2")])
            assert (await waiting).events[0].item.value == b"2"


async def test_a_user_where_none_is_asked_for_is_fine(etcd_server: EtcdServer) -> None:
    async with Client(user(etcd_server)) as client:
        await client.get("/slotway/k")
