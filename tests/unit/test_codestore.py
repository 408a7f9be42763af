"""The code store, in a folder and in memory."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from pathlib import Path

import pytest

from slotway.manager.codestore import CODE_BYTES_MAX, CodeStore, CodeStoreError, CodeTooLargeError

numbers = itertools.count()


@pytest.fixture(params=["path", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "a folder"
    return {
        "path": str(folder),
        "file": f"file://{folder}",
        "memory": f"memory://code{next(numbers)}",
    }[request.param]


async def test_code_is_found_by_its_hash(url: str) -> None:
    code = b"def main(args): return args\n"
    sha256 = await CodeStore(url).put(code)
    assert sha256 == hashlib.sha256(code).hexdigest()
    assert await CodeStore(url).get(sha256) == code
    assert await CodeStore(url).put(code) == sha256
    assert await CodeStore(url).put(b"") != sha256


async def test_unknown_code_is_told(url: str) -> None:
    with pytest.raises(CodeStoreError, match="there is no code 0000"):
        await CodeStore(url).get("0" * 64)


@pytest.mark.parametrize("sha256", ["", "../../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
async def test_what_is_no_hash_is_refused(tmp_path: Path, sha256: str) -> None:
    with pytest.raises(CodeStoreError, match="no sha256"):
        await CodeStore(str(tmp_path)).get(sha256)


async def test_damage_is_seen_and_mended(tmp_path: Path) -> None:
    store = CodeStore(str(tmp_path))
    sha256 = await store.put(b"good")
    path = tmp_path / sha256[:2] / sha256
    path.write_bytes(b"bad")
    with pytest.raises(CodeStoreError, match=f"{sha256} is damaged"):
        await store.get(sha256)
    await store.put(b"good")
    assert await store.get(sha256) == b"good"


async def test_too_much_code_is_refused(tmp_path: Path) -> None:
    store = CodeStore(str(tmp_path))
    await store.put(bytes(CODE_BYTES_MAX))
    with pytest.raises(CodeTooLargeError, match="16777217 bytes") as info:
        await store.put(bytes(CODE_BYTES_MAX + 1))
    assert info.value.reason == "REQUEST_TOO_LARGE"


def files(folder: Path) -> list[str]:
    return [one.name for one in folder.rglob("*") if one.is_file()]


async def test_many_at_once_leave_one_file(tmp_path: Path) -> None:
    store = CodeStore(str(tmp_path))
    hashes = await asyncio.gather(*(store.put(b"same") for _ in range(20)))
    assert files(tmp_path) == [hashes[0]]


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CodeStoreError, match=str(tmp_path)):
        await CodeStore(str(tmp_path / "file")).put(b"code")


def test_an_unknown_kind_of_store_is_told() -> None:
    with pytest.raises(CodeStoreError, match="nonsense"):
        CodeStore("nonsense://x")
