"""The example action: its answers on the data set, its witness and its barrier."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples/documents"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


DOCUMENTS, ANSWERS = lines("documents.jsonl"), lines("answers.jsonl")


def load(name: str) -> ModuleType:
    """A module of the example, anew: the witness is kept in it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("document", "answer"),
    list(zip(DOCUMENTS, ANSWERS, strict=True)),
    ids=[document["name"] for document in DOCUMENTS],
)
async def test_summaries(document: dict[str, str], answer: dict[str, Any]) -> None:
    assert (await load("action").main({"document": document}))["summary"] == answer


def test_the_data_set_is_what_its_script_makes() -> None:
    assert load("generate").documents() == list(zip(DOCUMENTS, ANSWERS, strict=True))


def test_the_data_set_has_faults_of_every_kind() -> None:
    problems = [problem for each in ANSWERS for problem in each["problems"]]
    for fault in "quantity", "amount", "isoformat", "gross is", "due before", "no title", "nobody":
        assert any(fault in problem for problem in problems), fault


async def test_the_witness_counts_what_is_inside(tmp_path: Path) -> None:
    main = load("action").main
    barrier = {"barrier_dir": str(tmp_path), "barrier_count": 5}
    answers = await asyncio.gather(*(main(barrier) for _ in range(5)))
    assert [answer["witness"]["running"] for answer in answers] == [1, 2, 3, 4, 5]
    assert {answer["witness"]["max"] for answer in answers} == {5}
    assert len({answer["witness"]["container"] for answer in answers}) == 1
    after = await main({})
    assert after["witness"]["running"] == 1
    assert after["witness"]["max"] == 5
    assert after["summary"] is None


async def test_a_barrier_that_is_not_reached(tmp_path: Path) -> None:
    barrier = {"barrier_dir": str(tmp_path), "barrier_count": 2, "barrier_timeout_ms": 1}
    with pytest.raises(TimeoutError, match="1 of 2 arrived"):
        await load("action").main(barrier)


async def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match="csv, json or md"):
        await load("action").main({"document": {"format": "pdf", "text": ""}})
