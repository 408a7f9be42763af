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
    """Writes figures.json and report.md; figures of areas that were not measured now stay."""
    RESULTS.mkdir(exist_ok=True)
    origin = {"machine": machine(), "commit": commit()}
    records = []
    for figure in figures:
        record = asdict(figure)
        del record["note"]
        records.append({**record, "met": figure.met, **origin})
    kept, kept_records = _kept({area(figure.name) for figure in figures})
    text = json.dumps([*kept_records, *records], indent=1, ensure_ascii=False) + "\n"
    table = report([*kept, *figures], origin)
    (RESULTS / "figures.json").write_text(text, encoding="utf-8")
    (RESULTS / "report.md").write_text(table, encoding="utf-8")


def area(name: str) -> str:
    """What a figure's name begins with."""
    return name.partition(".")[0]


def _kept(measured: set[str]) -> tuple[list[Figure], list[dict[str, object]]]:
    """What is in the files of other areas; their notes say which commit they are of."""
    try:
        records = json.loads((RESULTS / "figures.json").read_text(encoding="utf-8"))
        table = (RESULTS / "report.md").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return [], []
    rows = [[cell.strip() for cell in row.split("|")] for row in table if row.startswith("| ")]
    notes = {row[1]: row[5] for row in rows}
    figures, records = [], [one for one in records if area(one["name"]) not in measured]
    for record in records:
        of = f"of {record['commit']}"
        note = notes.get(record["name"], "")
        note = note if of in note else "; ".join(part for part in (note, of) if part)
        fields = (record[key] for key in ("name", "value", "unit", "goal"))
        figures.append(Figure(*fields, note))
    return figures, records


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
