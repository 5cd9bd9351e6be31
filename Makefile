# For contributors: a virtual environment in .venv, in which the plug-in and the console script come from this checkout.
PYTHON ?= python3
VENV = .venv/bin

.PHONY: setup test check

setup:
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet --config-settings editable_mode=compat -e '.[test,check]'

test:
	$(VENV)/pytest

check:
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
