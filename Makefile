# `make run` serves the backend, `make test` tests it, `make demo` shows it with a Label Studio beside it. Each makes .venv
# first, when it is missing or the requirements changed.
PYTHON ?= python3
LABEL_STUDIO_VERSION = 1.23.2
UV_VERSION = 0.13.9
AUDIT = $(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit
SBOM = $(BIN)/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py
BIN = .venv/bin
LOCK = $(BIN)/uv pip compile --quiet --no-python-downloads --universal --python-version 3.10 --no-header --no-emit-index-url --generate-hashes

export DEMO_DATA ?= demo-data
LABEL_STUDIO = .label-studio/bin/label-studio
# Progress where someone looks on.
QUIET := $(shell test -t 2 || echo --quiet)
# PyTorch's kind, see install.sh: `cuda` where there is a GPU, else `no-gpu`. An environment stays of its kind until it is
# told otherwise or a GPU is found.
GPU := $(wildcard /dev/nvidia*) $(shell command -v nvidia-smi)
TORCH_INSTALLED := $(shell cat .venv/torch 2>/dev/null)
ifneq ($(strip $(GPU)),)
TORCH ?= $(or $(filter cpu,$(TORCH_INSTALLED)),cuda)
else
TORCH ?= $(or $(TORCH_INSTALLED),no-gpu)
endif
SIZE_cuda = 6.2 GB (4.1 GB are CUDA's libraries)
SIZE_no-gpu = 4.2 GB (no GPU was found; TORCH=cuda installs all of CUDA's libraries, TORCH=cpu none: 2 GB)
SIZE_cpu = 2 GB
# tests/conftest.py says which tests stay together. One process more than there are cores, since tests wait for servers and
# for processes that end; more than eight want too much memory.
PARALLEL = --numprocesses $(shell processes=$$(($$(nproc) + 1)); echo $$((processes < 8 ? processes : 8)))
# Where it is set (images of containers do), each process compiles thousands of modules anew: a server starts in 5 s, not 3.
export PYTHONDONTWRITEBYTECODE =
export TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: .venv run test test-all audit sbom licences demo demo-submit demo-clean lint format lock clean
.NOTPARALLEL:

run: .venv
	@echo "Starting the backend. Loading PyTorch and Ultralytics takes some seconds …"
	@$(BIN)/python -m gunicorn _wsgi:app

# What a machine with Python alone can check, in some minutes. The tests run on every core, so each has one thread.
test: .venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

# What takes long as well, and tests/live with a real Label Studio and a browser, which leaves screenshots in artefacts/.
test-all: .venv $(LABEL_STUDIO)
	LABEL_STUDIO_BIN=$(LABEL_STUDIO) OMP_NUM_THREADS=1 $(BIN)/python -m pytest --everything $(PARALLEL)

demo: .venv $(LABEL_STUDIO)
	@$(BIN)/python -u -m demo

demo-submit: .venv
	@$(BIN)/python -u -m demo submit

demo-clean:
	rm -rf $(DEMO_DATA)

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The lock files name every package, so nothing is resolved here. uv installs them in parallel, pip would take minutes.
.venv: .venv/torch

# Written last, so that an installation that was cut short is begun again.
.venv/torch: requirements-dev.txt $(if $(filter-out $(TORCH_INSTALLED),$(TORCH)),FORCE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 …")'
	@if [ -e $@ ] && [ "$(TORCH)" = "$(TORCH_INSTALLED)" ]; then echo "Updating .venv: the requirements changed …"; \
		else echo "Installing the backend into .venv: $(SIZE_$(TORCH)) of disk. The download takes some minutes, once."; fi
	@test "$(TORCH)" = "$(or $(TORCH_INSTALLED),$(TORCH))" || rm -rf .venv
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 1 \
		--require-hashes -r requirements-uv.txt \
		|| { echo "The installation failed; the reason is above. It needs a network, and some GB of disk." >&2; exit 1; }
	@sh install.sh $(BIN)/uv $(BIN)/python requirements-dev.txt $(TORCH) $(QUIET)
	@echo $(TORCH) > $@

FORCE:

# Label Studio has an environment of its own: its dependencies don't fit beside the backend's.
$(LABEL_STUDIO): requirements-label-studio.txt | .venv
	@echo "Installing Label Studio into .label-studio …"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .label-studio
	@sh install.sh $(BIN)/uv .label-studio/bin/python requirements-label-studio.txt cuda $(QUIET)
	@touch $@

# The versions and hashes of everything that is installed, uv itself included: UV_VERSION changes that.
lock:
	echo "uv==$(UV_VERSION)" | $(LOCK) - --output-file requirements-uv.txt
	$(LOCK) pyproject.toml --output-file requirements.txt
	$(LOCK) --extra dev pyproject.toml --output-file requirements-dev.txt
	sed -n 's/^nvidia-cudnn-cu13==\([^ ]*\).*/nvidia-cudnn-jit-cu13==\1/p' requirements.txt \
		| $(LOCK) --no-deps - --output-file requirements-no-gpu.txt
	echo "label-studio==$(LABEL_STUDIO_VERSION)" | $(LOCK) - --output-file requirements-label-studio.txt

# Known vulnerabilities of what is locked; asks an index of advisories.
audit: .venv
	@$(AUDIT) --requirement requirements.txt --disable-pip --require-hashes --strict || { status=$$?; \
		echo "Either a package has a known vulnerability, or the index of advisories can't be asked: see above." >&2; exit $$status; }

# What is installed, as a CycloneDX document, and its licences as a page.
sbom: .venv
	@mkdir -p artefacts
	$(SBOM) environment --pyproject pyproject.toml --output-file artefacts/sbom.json $(BIN)/python

licences: .venv
	$(BIN)/python docs/licences.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -exec rm -rf {} +
