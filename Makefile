# `make demo`: a picture from a prompt. `make test`: what CI runs. `make check-figures`: what is
# published of the models in the box, and full-size models. Each makes its own .venv.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
EXTRAS := cpu,onnx,openvino,tensorrt-rtx,control,dev
WORKERS ?= 2
SIDE_BY_SIDE = --numprocesses $(WORKERS) --dist loadfile --max-worker-restart 0
PROMPT ?= a large red star on a blue background

.PHONY: demo test test-lowest check-figures lint clean

demo: .venv/installed
	$(BIN)/fastdeploy-diffusion generate "$(PROMPT)" --model shapes --seed 7 \
		--output demo.png --overwrite

# First what can run side by side, a file to a worker; then what cannot.
test: lint
	$(BIN)/python -m pytest -m "not serial and not figures" $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest -m "serial and not figures"

# The lowest versions that setup.py allows, once with the references (torch, diffusers,
# transformers), once with the tokenizers that these no longer take.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint tests/lowest-versions.txt \
		--editable ".[$(EXTRAS)]"
	.venv-lowest/bin/python -m pytest -m "not serial and not figures" $(SIDE_BY_SIDE)
	.venv-lowest/bin/python -m pytest -m "serial and not figures"
	.venv-lowest/bin/python -m pip install --quiet --no-deps tokenizers==0.21.0
	.venv-lowest/bin/python -m pytest tests/pipelines/test_sd.py

check-figures: .venv/installed-dev
	$(BIN)/python -m pytest -m figures

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv:
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed, and none was found:" \
		"make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/installed: setup.py | .venv
	$(BIN)/python -m pip install --quiet --editable ".[cpu,openvino]"
	@touch $@

.venv/installed-dev: setup.py | .venv
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	@touch $@ .venv/installed

clean:
	rm -rf .venv .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
