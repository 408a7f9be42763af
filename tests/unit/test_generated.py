"""The committed generated code is what the .proto files give."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    plugins = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        [sys.executable, ROOT / "proto" / "generate.py", tmp_path],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": plugins},
    )
    made = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(made) >= 25
    stale = [
        str(name)
        for name, path in made.items()
        if path.read_bytes() != (ROOT / "python" / name).read_bytes()
    ]
    assert not stale, f"run `make proto`: {stale}"
