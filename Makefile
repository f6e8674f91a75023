# Every target sets itself up. A fresh machine needs python3 (3.11 or newer), make and git, nothing else.
PYTHON ?= python3
# processes of `make test`
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-processes test-slow check format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(VENV)/run ## install what training needs into .venv

demo: $(VENV)/run ## train both examples on synthetic data; about a minute
	$(BIN)/python train.py experiment=demo
	$(BIN)/python train.py experiment=demo_tagger

test: $(VENV)/dev ## offline tests, on two cores
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-processes: $(VENV)/dev ## runs of several processes, crashes, whole programs; about a quarter of an hour
	$(BIN)/python -m pytest -m processes

test-slow: $(VENV)/dev ## calibration of statistics, and tests on the real data in $ARCLIGHT_DATA; two minutes
	$(BIN)/python -m pytest -m slow

check: $(VENV)/dev ## format, lint, types, import rules, dependencies, language
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/python scripts/check_language.py

format: $(VENV)/dev ## fix the format and what ruff can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove .venv and caches; runs and data stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Stamp files, so that nothing is installed twice. An incomplete .venv has no stamp and is built again.
$(VENV)/run: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
