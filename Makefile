.PHONY: install test slow lint format docs ci

install:
	pip install -e ".[test,lint,docs]"

test:
	pytest

slow:
	pytest -m slow -n 0

lint:
	ruff check .
	ruff format --check .
	mypy

format:
	ruff check --fix .
	ruff format .

docs:
	mkdocs build --strict

ci:
	.ci/run
