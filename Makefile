# Two commands: `make run` (set up, then the first evaluation) and `make test` (set up, then all checks). And `make results`,
# which makes results/mini again: three modes of mmemb_r1, the floors, and what compares them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
# faiss-gpu and torchvision where there is an NVIDIA driver, faiss-cpu elsewhere.
EXTRA  ?= $(shell if nvidia-smi >/dev/null 2>&1; then echo gpu; else echo cpu; fi)

.PHONY: run test test-fast fuzz results clean

run: $(VENV)/.installed
	$(BIN)/mmeb-eval run --model mmemb_r1

# mypy has one process, and tests wait a fifth of their time: beside them it takes hardly any.
test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy > $(VENV)/mypy.txt 2>&1 & mypy=$$!; $(BIN)/pytest; tests=$$?; \
	wait $$mypy; types=$$?; cat $(VENV)/mypy.txt; exit $$((tests | types))

# While working: what takes longest is left out.
test-fast: $(VENV)/.installed
	$(BIN)/pytest -m "not slow"

# Every hostile input of tests/faults as a real process, then runs killed at random moments; --seed repeats them.
fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.faults --kills 50

MODES := runs/mini-mmemb_r1-never runs/mini-mmemb_r1-always runs/mini-mmemb_r1
FLOORS := runs/mini-bag_of_features runs/mini-random
# Training queries that trained nothing (mini.yaml has seeds 1 and 2): on these the controls of the gate are fitted.
HELD_OUT := runs/held-out

results: $(VENV)/.installed
	$(BIN)/mmeb-eval run --model mmemb_r1 --reasoning never --keep-states --fresh
	$(BIN)/mmeb-eval run --model mmemb_r1 --reasoning always --fresh
	$(BIN)/mmeb-eval run --model mmemb_r1 --fresh
	$(BIN)/mmeb-eval run --model bag_of_features --fresh
	$(BIN)/mmeb-eval run --model random --fresh
	rm -rf $(HELD_OUT)
	$(BIN)/python -m mmeb_tasks.mini $(HELD_OUT)/data --split train --seed 3
	$(BIN)/mmeb-eval run --model mmemb_r1 --reasoning never --keep-states --data $(HELD_OUT)/data --output $(HELD_OUT)/never
	$(BIN)/mmeb-eval run --model mmemb_r1 --reasoning always --data $(HELD_OUT)/data --output $(HELD_OUT)/always
	for run in $(MODES) $(FLOORS); do cp $$run/run.json results/mini/$${run#runs/mini-}.json; done
	$(BIN)/mmeb-eval leaderboard $(MODES) $(FLOORS) --output results/mini/leaderboard.md
	$(BIN)/mmeb-eval compare $(MODES) --fitted-on $(HELD_OUT)/never --fitted-on $(HELD_OUT)/always > results/mini/modes.txt
	$(BIN)/mmeb-eval plot $(MODES) --only reasoning-share --output results/mini

# Not compiled, in half the time: Python compiles what it imports, which is a small part.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e ".[$(EXTRA),dev]"
	touch $@

clean:
	rm -rf $(VENV) runs
