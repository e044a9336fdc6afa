# `make demo` and `make test` each do everything: make .venv, install, run.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint format clean

demo: .venv/.installed
	$(BIN)/littune demo --out demo

test: .venv/.installed lint
	$(BIN)/python -m pytest -q

test-slow: .venv/.installed
	$(BIN)/python -m pytest -q -m slow

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[demo,hf,e5,faiss,lance,lora,onnx,open-clip,pgvector,serve,dev]'
	touch $@

clean:
	rm -rf .venv demo/work build dist
