# Each target sets up what it needs: `make setup` builds .venv at the root and runs again only when the requirements change.
PYTHON ?= python3
BIN := .venv/bin
.PHONY: setup browser web demo test test-all lint bench clean

setup: .venv/.done

# torch first, at the pinned version: a bare `torch` would bring gigabytes of CUDA libraries.
.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "vitral needs Python 3.11: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	rm -rf runs/digits
	$(BIN)/vitral train digits --recipe recipes/digits.toml --out runs/digits

# The viewer is tested in a real browser: Debian's, where there is apt. Without one those tests are skipped, by name.
browser:
	command -v chromium && command -v chromedriver || ! command -v apt-get || { \
		sudo=$$(test "$$(id -u)" = 0 || echo sudo); \
		$$sudo apt-get update -qq && $$sudo apt-get install -qq --no-install-recommends chromium chromium-driver; } || \
		echo "no Chromium could be installed: the viewer's tests in a browser are skipped"

# What pages of `vitral export --to web` run on: an npm package of one version, fetched once. Without npm those tests are skipped, by name.
web: setup
	! command -v npm || $(BIN)/python -m vitral.deploy.web.runtime || echo "no runtime for pages: their tests are skipped"

# Neighbours stay together (worksteal), so that what a module's tests share is made once. Three, where two cores are, compute while others wait for
# a browser or a process. Random: other examples every time.
test: setup browser web
	$(BIN)/python -m pytest -n 3 --dist worksteal -m 'not slow'

test-all: setup browser web
	$(BIN)/python -m pytest -n 2 --dist worksteal --hypothesis-profile=random

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'transformers>=5' einops
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps vit-pytorch
	$(BIN)/python benchmarks/training.py
	$(BIN)/python -W ignore benchmarks/inference.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
