# Thin targets; the README gives the plain pip and python lines, for Windows.
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: demo test check bench figures ui

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/.installed
	$(PY) -m xlite_search run search_spaces/kd_grid.py --demo

check: .venv/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

test: check
	$(PY) -m pytest -m "not slow"

bench: .venv/.installed
	$(PY) benchmarks/metrics.py
	$(PY) benchmarks/data.py
	$(PY) benchmarks/scale.py
	$(PY) benchmarks/orchestration.py
	$(PY) benchmarks/kd_grid.py
	$(PY) benchmarks/asha.py
	$(PY) benchmarks/claims.py
	$(PY) benchmarks/few_positives.py
	$(PY) benchmarks/figures.py

figures: .venv/.installed
	$(PY) benchmarks/figures.py

ui: .venv/.installed
	$(PY) -m xlite_search ui
