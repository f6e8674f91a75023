# Every target sets itself up: on a fresh machine it needs python3 (3.11 or newer), make and git, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-processes test-slow check format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(VENV)/run ## build .venv with what training needs

demo: $(VENV)/run ## train both tasks on data made on the spot; about a minute
	$(BIN)/python train.py experiment=demo
	$(BIN)/python train.py experiment=demo_tagger

test: $(VENV)/dev ## the offline tests
	$(BIN)/python -m pytest

test-processes: $(VENV)/dev ## runs of several processes, processes that die, whole programs; about six minutes
	$(BIN)/python -m pytest -m processes

test-slow: $(VENV)/dev ## tests on the real data in $ARCLIGHT_DATA; about a minute
	$(BIN)/python -m pytest -m slow

check: $(VENV)/dev ## format, lint, types, import directions
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/dev ## mend format and what lint can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove .venv and caches; runs and data stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Stamps, so that nothing is installed twice. A half-built .venv has no stamp and is built again.
$(VENV)/run: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
