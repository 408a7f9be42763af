"""A measured figure, and the files that figures are written to.

`figures.json` is a list of `{name, value, unit, goal, met, machine, commit}`: `name` is
"area.metric"; a goal is the most that the value may be, and None for a figure that only explains
others; `met` is None if there is no goal, or no value.
"""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; `note` says how far it spread, or why there is none."""

    name: str
    value: float | None
    unit: str
    goal: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value is within its goal."""
        return None if self.goal is None or self.value is None else self.value <= self.goal


def machine() -> str:
    """The processor, how many of it, and the kernel."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} × {(models or ['?'])[0]}, Linux {platform.release()}"


def commit() -> str:
    """The commit that is checked out, with "-dirty" behind it if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def write(figures: list[Figure]) -> None:
    """Writes figures.json and report.md."""
    RESULTS.mkdir(exist_ok=True)
    origin = {"machine": machine(), "commit": commit()}
    records = []
    for figure in figures:
        record = asdict(figure)
        del record["note"]
        records.append({**record, "met": figure.met, **origin})
    text = json.dumps(records, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "figures.json").write_text(text, encoding="utf-8")
    (RESULTS / "report.md").write_text(report(figures, origin), encoding="utf-8")


def report(figures: list[Figure], origin: dict[str, str]) -> str:
    """The figures as a Markdown table."""
    words = {True: "yes", False: "**no**", None: "–"}
    lines = [
        f"# Figures of {origin['commit']}",
        f"{origin['machine']}",
        "",
        "| figure | value | goal | met | spread, or why there is none |",
        "|---|---|---|---|---|",
    ]
    for figure in figures:
        value = "–" if figure.value is None else f"{figure.value:,.4g} {figure.unit}".strip()
        goal = "–" if figure.goal is None else f"≤ {figure.goal:g}"
        lines.append(f"| {figure.name} | {value} | {goal} | {words[figure.met]} | {figure.note} |")
    return "\n".join(lines) + "\n"
