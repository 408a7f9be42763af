"""The files of figures: an area that is measured anew replaces its own figures, and no others."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "bench" / "figure.py"
    spec = importlib.util.spec_from_file_location("figure", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "figure", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "commit", lambda: "c1")
    return module


def test_other_areas_stay(figure: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    figure.write([figure.Figure("a.x", 1.0, "ms", 2, "three times"), figure.Figure("b.x", 5.0, "")])
    monkeypatch.setattr(figure, "commit", lambda: "c2")
    figure.write([figure.Figure("b.x", 6.0, ""), figure.Figure("b.y", None, "", 1)])
    monkeypatch.setattr(figure, "commit", lambda: "c3")
    figure.write([figure.Figure("d.x", 7.0, "")])
    records = json.loads((figure.RESULTS / "figures.json").read_text())
    found = {one["name"]: (one["value"], one["met"], one["commit"]) for one in records}
    assert found == {
        "a.x": (1.0, True, "c1"),
        "b.x": (6.0, None, "c2"),
        "b.y": (None, None, "c2"),
        "d.x": (7.0, None, "c3"),
    }
    report = (figure.RESULTS / "report.md").read_text()
    assert "| a.x | 1 ms | ≤ 2 | yes | three times; of c1 |" in report
    assert "| b.x | 6 | – | – | of c2 |" in report
    assert report.startswith("# Figures of c3")
