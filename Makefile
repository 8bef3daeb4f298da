# Every target runs `sh deployments/environment.sh` and a `python -m …` command, so everything works without make as well.

PYTHON ?= python3
export PYTHON
VENV_PYTHON := .venv/bin/python
# A file of tests for each core at a time, and one more, for many tests wait; each with servers of its own.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PYTEST = $(VENV_PYTHON) -m pytest $(PARALLEL)
# Prefect starts in half the time from compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up down test test-fast test-thorough test-image faults soak coverage mutation sbom audit lint bench environment environment-dev

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: environment ## Start everything, make the first backup, say where it lies
	@$(VENV_PYTHON) -m deployments.up

down: ## Stop everything that `make up` started; the data stays
	@if [ -x $(VENV_PYTHON) ]; then $(VENV_PYTHON) -m deployments.down; else echo "Nothing runs: there is no .venv."; fi

test: environment-dev ## Run the tests of every change, against PostgreSQL and S3 servers of their own
	@$(PYTEST) -m "not thorough and not faults and not image"

test-thorough: environment-dev ## Run the long attacks: kills, cuts and damage in many rounds
	@$(PYTEST) -m thorough

test-fast: environment-dev ## Run the quick tests: no Prefect server, the newest PostgreSQL alone
	@$(PYTEST) -m "not slow and not thorough and not faults"

test-image: environment-dev ## Build the image with buildah and run set-up, worker, backup and restore in it, as root
	@$(VENV_PYTHON) -m pytest -m image tests/deployments/test_image.py

faults: environment-dev ## Run every fault of the laboratory; FAULT=name SEED=number repeats one
	@rm -rf build/faults
	@FAULT="$(FAULT)" SEED="$(or $(SEED),1)" $(PYTEST) -m faults tests/faults

soak: environment-dev ## Run random operations for an hour, or for SOAK_MINUTES; afterwards all must agree and be as before
	@SOAK_MINUTES="$(or $(SOAK_MINUTES),60)" SEED="$(or $(SEED),1)" $(VENV_PYTHON) -m pytest -p no:logging tests/faults/test_soak.py

coverage: environment-dev ## Run all tests and say which lines and branches of tasks/ none of them reached
	@rm -f .coverage .coverage.*
	@$(VENV_PYTHON) -m coverage run -m pytest $(PARALLEL) -m "not image"
	@$(VENV_PYTHON) -m coverage combine --quiet
	@$(VENV_PYTHON) -m coverage report --fail-under 95

mutation: environment-dev ## Change the rules of retention, manifest, spool, reader and COMMIT: a test must fail each time
	@sh deployments/environment.sh requirements-mutation.lock
	@$(VENV_PYTHON) -m mutmut run
	@$(VENV_PYTHON) -m mutmut results

# Tools that look at packages from outside have environments of their own: none of them gets into .venv.
sbom: environment ## Write docs/sbom.json: every package of requirements.lock with version and licence (CycloneDX)
	@$(VENV_PYTHON) -m venv --clear --without-pip build/packages
	@.venv/bin/pip --python build/packages/bin/python install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(VENV_PYTHON) -m venv --clear build/tools
	@build/tools/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	@build/tools/bin/cyclonedx-py environment --short-PURLs --output-reproducible --pyproject pyproject.toml \
		--output-format JSON --output-file build/packages.json build/packages/bin/python
	@$(VENV_PYTHON) -m tests.documents.bill_of_materials < build/packages.json > docs/sbom.json

audit: environment ## Ask the index for known vulnerabilities of the packages of requirements.lock
	@$(VENV_PYTHON) -m venv --clear build/tools
	@build/tools/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@build/tools/bin/pip-audit --disable-pip --requirement requirements.lock

lint: environment-dev ## Check style, format and types
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy

bench: environment-dev ## Measure a backup against pg_dump alone
	@$(VENV_PYTHON) -m tests.benchmarks

environment:
	@sh deployments/environment.sh

environment-dev:
	@sh deployments/environment.sh requirements-dev.lock
