# Everything that is done by hand or by CI. `make` alone lists it.
#
# All of it runs in .venv, made on first use from the Python named by PYTHON, else the first of
# python3.12, python3.11 and python3 that is new enough. Each stamp file in .venv stands
# for one `pip install`, repeated when pyproject.toml changes.

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
CODE := idempotency scheduler exporter alerts dashboards demo tests
ARGS ?=
ONLY ?=
SEED ?=
MINUTES ?=
DISABLE ?=
ROUND ?=
SCENE ?=

.PHONY: help demo test test-beats faults check lint types imports wheel audit boards rules docs bench bench-large soak comparison clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(VENV)/.demo ## run a worker on real duplicates, watch them being turned away (ARGS="--seconds 30")
	$(BIN)/python -m idemwatch.demo $(ARGS)

test: $(VENV)/.dev ## run the tests, but for the wheel's and the image's (ARGS="tests/test_keys.py -k decimal")
	$(BIN)/python -m pytest --ignore=tests/test_wheel.py --ignore=tests/test_image.py $(ARGS)

test-beats: $(VENV)/.dev ## kill and freeze three beats for two minutes, count what was done (ARGS="--seed 7")
	$(BIN)/python tests/check_beats.py $(ARGS)

faults: $(VENV)/.dev ## break real stores and workers, check the guarantee (SEED=n MINUTES=m DISABLE=rule ROUND=k)
	$(BIN)/python tests/faults/run.py --minutes $(or $(MINUTES),2) $(if $(SEED),--seed $(SEED)) \
		$(if $(DISABLE),--disable $(DISABLE)) $(if $(ROUND),--only $(ROUND)) \
		$(if $(SCENE),--scene $(SCENE)) $(ARGS)

check: lint types imports wheel ## ruff, mypy --strict, the layers of imports, the built wheel

lint: $(VENV)/.dev ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The folders are checked through .types, where they bear the names that they are imported by.
types: $(VENV)/.dev ## mypy --strict over code and tests
	$(BIN)/mypy .types/idemwatch tests

imports: $(VENV)/.dev ## import-linter: imports point one way
	$(BIN)/lint-imports

wheel: $(VENV)/.dev ## build the wheel, install it into empty virtual environments and as the image does, try it there
	$(BIN)/python -m pytest tests/test_wheel.py tests/test_image.py

audit: $(VENV)/.dev ## bandit over what ships; known faults in what is installed (ARGS=--unreachable-is-told)
	$(BIN)/bandit -q -c pyproject.toml -r idempotency exporter scheduler alerts dashboards demo
	$(BIN)/python tests/check_audit.py $(ARGS)

boards: $(VENV)/.demo ## write the Grafana boards again (dashboards/json)
	$(BIN)/idemwatch boards build dashboards/json

docs: $(VENV)/.demo ## write docs/metrics.md again
	$(BIN)/python -m idemwatch.exporter.metrics_page > docs/metrics.md

rules: $(VENV)/.demo ## write the alert and recording rules again (alerts/rules)
	$(BIN)/idemwatch rules build alerts/rules

bench: $(VENV)/.bench ## measure, with the peers beside us (ONLY=name for one)
	$(BIN)/python tests/benchmarks/run.py $(if $(ONLY),--only $(ONLY))

soak: $(VENV)/.dev ## full load for long: does anything grow, is every message accounted for (MINUTES=30)
	$(BIN)/python tests/soak/run.py --minutes $(or $(MINUTES),30)

comparison: $(VENV)/.comparison ## do each case with the peers too, write docs/comparison.md (ONLY=case to look at one)
	$(VENV)/comparison/bin/python tests/comparison/run.py $(if $(ONLY),--only $(ONLY)) $(ARGS)

bench-large: $(VENV)/.bench ## measure what takes minutes to prepare
	$(BIN)/python tests/benchmarks/run.py --large

clean: ## remove what was made here, .venv too
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .demo
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@python='$(PYTHON)'; \
	for candidate in python3.12 python3.11 python3; do \
		test -z "$$python" || break; \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
			&& python="$$candidate"; \
	done; \
	if ! "$${python:-none}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "idemwatch needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV) || { \
		echo "$$python cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; \
		exit 1; \
	}
	@# Dependency groups need pip 25.1.
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.python
	$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --group dev
	@# Its metadata refuses Celery 5.7, its code does not.
	$(PIP) install --no-deps 'celery-batches>=0.11'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --group bench
	@touch $@

$(VENV)/.comparison: pyproject.toml tests/comparison/requirements.txt $(VENV)/.python
	$(BIN)/python -m venv --clear $(VENV)/comparison
	$(VENV)/comparison/bin/python -m pip --disable-pip-version-check -qq install \
		--editable '.[demo]' -r tests/comparison/requirements.txt || { \
		echo "make comparison installs the peers from PyPI, which did not answer or lacks one: see above" >&2; \
		exit 1; \
	}
	@touch $@
