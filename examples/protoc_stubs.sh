#!/bin/sh
# Makes stubs with plain protoc from the .proto files that Slotway ships, and runs bare_stubs.py on them alone.
# Needs grpcio-tools (pip install grpcio-tools), which is protoc with the plugin for Python; for another language take
# its own plugin: protoc -I "$protos" --go_out=out --go-grpc_out=out "$protos"/slotway/v1/*.proto
#
# Usage: sh protoc_stubs.sh [HOST:PORT]     otherwise SLOTWAY_ENDPOINT
set -eu
here=$(cd "$(dirname "$0")" && pwd)
protos=$(python -c 'import os, slotway; print(os.path.dirname(os.path.dirname(slotway.__file__)))')
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
python -m grpc_tools.protoc -I "$protos" --python_out="$out" --grpc_python_out="$out" "$protos"/slotway/v1/*.proto
# A directory is its proto package is its Python package, so nothing needs rewriting. The empty files put these stubs
# before the installed ones.
touch "$out/slotway/__init__.py" "$out/slotway/v1/__init__.py"
PYTHONPATH=$out python "$here/bare_stubs.py" "$@"
