"""Writes the Python code of every .proto file below this folder into another, and a copy of each.

Usage: python proto/generate.py [OUT]     OUT is python/ of the checkout unless given.
The test tests/unit/test_generated.py runs it into an empty folder and compares.
"""

import shutil
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

SOURCE = Path(__file__).resolve().parent
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def generate(out: Path) -> None:
    """Generates messages, stubs and their types below `out`, by import path."""
    for proto in sorted(SOURCE.rglob("*.proto")):
        name = proto.relative_to(SOURCE)
        arguments = [
            f"--{plugin}={out}"
            for plugin in ("python_out", "mypy_out", "grpc_python_out", "mypy_grpc_out")
        ]
        out.mkdir(parents=True, exist_ok=True)
        if protoc.main(["protoc", f"-I{SOURCE}", f"-I{WELL_KNOWN}", *arguments, str(name)]) != 0:
            sys.exit(f"protoc failed on {name}")
        shutil.copyfile(proto, out / name)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE.parent / "python")
