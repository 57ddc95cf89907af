# The environment is made on first use and again when what it is made from changes.
# pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS) choose the build of torch.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: sweep test slow containers lint types bench clean

sweep: .venv/.installed
	$(BIN)/sweeps run quickstart

test: .venv/.installed-dev
	$(BIN)/python -m pytest -m "not slow and not containers" -n 3 --dist loadfile --no-loadscope-reorder

slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow

# BUILD_ARGS: for docker build, such as --build-arg PIP_INDEX_URL=...
containers: export BUILD_ARGS := $(BUILD_ARGS)
containers: .venv/.installed-dev
	$(BIN)/python -m pytest -m containers --log-cli-level=INFO tests/docker/test_containers.py

lint: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.installed-dev
	$(BIN)/mypy

bench: .venv/.installed
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(INSTALL) --editable ".[dev]"
	touch $@
