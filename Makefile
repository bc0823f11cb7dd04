# Everything starts from a bare Python 3.11: `make demo` and `make test` set up what they need.
PYTHON ?= python3.11
LOCK ?= requirements/cpu.txt
ENGINE ?= vllm
BIN := .venv/bin
DEMO := runs/demo
SERIES := $(DEMO)/tiny
SCORE := --series $(SERIES) --ckpts 3:36:4 --sequences 32 --engine $(ENGINE) --out $(DEMO)/results

.PHONY: demo test check bench lock setup clean

setup: ## create .venv and install what the lock pins
	@requirements/install $(PYTHON) $(LOCK)

demo: setup ## train the tiny series, score it, draw the figures
	$(BIN)/python -m training prepare --recipe tiny --out $(SERIES)
	$(BIN)/python -m training run --out $(SERIES)
	$(BIN)/analysis360 memorization $(SCORE)
	$(BIN)/analysis360 figures $(SCORE) --to $(DEMO)/figures

test: setup ## run the tests, two files at a time, the long ones early; threads that wait do not spin, as they would get in each other's way
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup ## format, lint, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup ## the benchmarks, each a ratio against a peer or a limit measured in the same run; BENCH=--quick tries them
	$(BIN)/python tests/benchmarks/everything.py $(BENCH)

lock: ## resolve the lock files anew (needs uv)
	requirements/compile

clean: ## remove what the demo made
	rm -rf $(DEMO)
