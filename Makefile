# `make demo`: a picture from a prompt. `make test`: what CI runs. `make check-figures`: what is
# published of the models in the box, and full-size models. Each makes its own .venv.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
WORKERS ?= 2
PROMPT ?= a large red star on a blue background

.PHONY: demo test check-figures lint clean

demo: .venv/installed
	$(BIN)/fastdeploy-diffusion generate "$(PROMPT)" --model shapes --seed 7 \
		--output demo.png --overwrite

# First what can run side by side, a file to a worker; then what cannot.
test: lint
	$(BIN)/python -m pytest -m "not serial and not figures" \
		--numprocesses $(WORKERS) --dist loadfile --max-worker-restart 0
	$(BIN)/python -m pytest -m "serial and not figures"

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
	$(BIN)/python -m pip install --quiet --editable ".[cpu,onnx,openvino,tensorrt-rtx,dev]"
	@touch $@ .venv/installed

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
