# `make run` serves the backend, `make test` tests it. Both make .venv first, when it is missing or the requirements changed.
PYTHON ?= python3
UV_VERSION = 0.13.9
BIN = .venv/bin
LOCK = $(BIN)/uv pip compile --quiet --no-python-downloads --universal --python-version 3.10 --no-header --no-emit-index-url

.PHONY: run test lint format lock clean
.NOTPARALLEL:

run: .venv
	$(BIN)/python -m gunicorn _wsgi:app

test: .venv
	$(BIN)/python -m pytest

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The lock files name every package, so nothing is resolved here. uv installs them in parallel, pip would take minutes.
.venv: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python -r requirements-dev.txt
	@touch .venv

lock:
	$(LOCK) pyproject.toml --output-file requirements.txt
	$(LOCK) --extra dev pyproject.toml --output-file requirements-dev.txt

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -exec rm -rf {} +
