# Two commands: `make run` (set up, then the first evaluation) and `make test` (set up, then all checks).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
# faiss-gpu and torchvision where there is an NVIDIA driver, faiss-cpu elsewhere.
EXTRA  ?= $(shell if nvidia-smi >/dev/null 2>&1; then echo gpu; else echo cpu; fi)

.PHONY: run test clean

run: $(VENV)/.installed
	$(BIN)/mmeb-eval run --model mmemb_r1

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRA),dev]"
	touch $@

clean:
	rm -rf $(VENV) runs
