# Every way in. `make help` lists them; CI runs the same ones.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv# relative: make splits absolute paths at their spaces
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
RUST_MINIMUM := 1.88
RUST_SOURCES := $(shell find slotcore bench/openloop -name '*.rs' -o -name Cargo.toml 2>/dev/null) Cargo.toml Cargo.lock

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Slotway needs Python 3.11 or newer: apt-get install python3.11 python3.11-venv (or make PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt pip
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --group dev
	touch $@

.PHONY: rust-check
rust-check:
	@command -v cargo >/dev/null || { echo "Slotway needs Rust $(RUST_MINIMUM) or newer: see README.md, 'Rust'"; exit 1; }
	@have=$$(rustc --version | cut -d' ' -f2); [ "$$(printf '%s\n' $(RUST_MINIMUM) $$have | sort -V | head -1)" = $(RUST_MINIMUM) ] \
	  || { echo "Rust $$have is too old; Slotway needs $(RUST_MINIMUM) or newer: see README.md, 'Rust'"; exit 1; }

$(VENV)/.built: $(VENV)/.ready $(RUST_SOURCES) | rust-check
	VIRTUAL_ENV="$(CURDIR)/$(VENV)" PIP_CONSTRAINT=constraints.txt $(BIN)/maturin develop --release --locked -q
	touch $@

.PHONY: help setup
setup: $(VENV)/.built ## the virtual environment, all dependencies, the extension (release build)

.PHONY: proto fmt lint
proto: $(VENV)/.ready ## write the generated code
	python proto/generate.py
fmt: $(VENV)/.ready ## format everything
	cargo fmt --all
	ruff check -q --fix-only python tests bench examples proto || true
	ruff format -q python tests bench examples proto
lint: setup ## ruff, mypy, stubtest, import-linter, buf, rustfmt, clippy
	ruff check -q python tests bench examples proto
	ruff format -q --check python tests bench examples proto
	buf lint
	buf format -d --exit-code
	mypy
	MYPYPATH=python python -m mypy.stubtest slotway._slotcore
	lint-imports
	cargo fmt --all --check
	cargo clippy -q --locked --workspace --all-targets -- -D warnings
	cargo clippy -q --locked -p slotcore-accounting --all-targets --features planted -- -D warnings

.PHONY: rust-test python-test
rust-test: | rust-check
	cargo test -q --locked --profile proof --workspace --exclude slotcore-accounting --exclude slotcore-bridge
	cargo test -q --locked --profile proof -p slotcore-accounting --features planted
python-test: setup
	pytest

.PHONY: simulation planted
simulation: setup ## 2,000 seeds of the whole cluster in virtual time (SEED=n: that one, shown; LONG=1: 100,000)
	python -m tests.simulation $(if $(SEED),--seeds $(SEED) --show,--seeds $(if $(LONG),0-100000,0-2000))
planted: setup ## the simulation with one bug on purpose at a time: each has to be found
	cargo build -q --locked --profile proof -p slotcore-bridge --features planted
	pytest -m planted tests/simulation

.PHONY: image test-docker test-drills
image: ## the Docker image of the Python runtime (its base by debootstrap, as root, unless BASE=image is given)
	@docker version >/dev/null || { echo "Docker is needed: see docs/docker.md"; exit 1; }
	$(if $(BASE),,images/base.sh slotway/base:bookworm)
	docker build -q -f images/Dockerfile --build-arg BASE=$(or $(BASE),slotway/base:bookworm) -t slotway/python:3 .
test-docker: setup image ## the Docker driver's contract, and each of its restrictions tried from inside
	pytest -m docker
test-drills: setup ## what takes minutes: the storm, planted bugs under load, and the drills by the lines of docs/drills.md
	pytest -m drill

.PHONY: check proof test demo mixture drills bench drills-bench wheel clean
check: lint ## lint and the quick tests, under two minutes
	cargo test -q --locked --profile proof --workspace --exclude slotcore-bridge --lib
	pytest -m "not slow and not docker and not planted and not drill" -x
proof: | rust-check ## check the accounting's model, and write docs/proof.md anew
	cargo test -q --locked --profile proof -p slotcore-accounting --features planted --test proof -- --write $(CURDIR)/docs/proof.md
test: lint rust-test python-test ## everything that must pass, within 15 minutes
	python examples/demo.py --requests 1000
demo: setup ## a cluster on this machine, 30,000 requests, and what the action's own code saw (DRIVER=docker: fewer)
	python examples/demo.py $(if $(DRIVER),--driver $(DRIVER))
mixture: setup ## ten minutes of all that goes wrong, with a witness (SECONDS=600 SEED=n DRIVER=docker; as root with Docker, which it restarts)
	python -m tests.drills.mixture $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(DRIVER),--driver $(DRIVER))
drills: setup ## ten minutes of faults, one after the other, and what must hold after each (SECONDS=600 SEED=n LONG=1 ETCD_BIN=folder; all of them as root)
	$(if $(ETCD_BIN),PATH="$(ETCD_BIN):$$PATH") python -m tests.drills.campaign $(if $(SECONDS),--seconds $(SECONDS),$(if $(LONG),--seconds 14400)) $(if $(SEED),--seed $(SEED))
bench: setup ## measure; writes bench/results (needs haproxy and h2load; QUICK=1: a short run)
	python bench/run.py $(if $(QUICK),--quick)
drills-bench: setup ## measure failovers, within an hour (QUICK=1: three of each; EVENTS=killed,handover REPS=20); writes bench/results
	PYTHONPATH=bench python -m drills $(if $(QUICK),--quick) $(if $(EVENTS),--events $(EVENTS)) $(if $(REPS),--reps $(REPS))
wheel: $(VENV)/.ready | rust-check ## a wheel in dist/
	$(BIN)/maturin build --release --locked --out dist
clean: ## remove what was built
	rm -rf $(VENV) target dist
