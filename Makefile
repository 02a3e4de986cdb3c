# Thin targets; the README gives the plain pip and python lines, for Windows.
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: demo handed handover serve-demo test check bench figures ui

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/.installed
	$(PY) -m xlite_search run search_spaces/kd_grid.py --demo

handed: .venv/.installed
	$(PY) -m xlite_search best kd_grid-demo -o mlruns/best.yaml
	$(PY) -m xlite_search train mlruns/best.yaml --name handover
	$(PY) -m xlite_search calibrate handover

# after `make demo`: from its best config to answers without PyTorch
handover: handed
	$(PY) -m xlite_search evaluate handover --on test
	$(PY) -m xlite_search explain handover
	$(PY) -m xlite_search export handover -o mlruns/handover
	$(PY) -m xlite_search predict mlruns/handover mlruns/handover/known_answers/phantom_1.png
	$(PY) -m xlite_search predict mlruns/handover --selftest

# a service with a page. Without `make demo` and `make handover` before, it makes what the service needs of them, and
# the model's card names what is missing. PORT=0 takes any port that is free
PORT ?= 8000
serve-demo: .venv/.installed mlruns/handover/export.json
	$(PY) -m xlite_search serve mlruns/handover --port $(PORT)

mlruns/handover/export.json:
	$(MAKE) demo
	$(MAKE) handed
	$(PY) -m xlite_search export handover -o mlruns/handover

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
	$(PY) benchmarks/domain.py
	$(PY) benchmarks/maps.py
	$(PY) benchmarks/latency.py
	$(PY) benchmarks/serve.py
	$(PY) benchmarks/gpu.py
	$(PY) benchmarks/figures.py

figures: .venv/.installed
	$(PY) benchmarks/figures.py

ui: .venv/.installed
	$(PY) -m xlite_search ui
