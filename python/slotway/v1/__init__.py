"""Generated from proto/slotway/v1 by proto/generate.py; the .proto files lie beside it."""
