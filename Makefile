# From a fresh clone: `make reproduce`. Settings: PROFILE, FRESH=1, DATA, RUNS, OUT, PYTHON, VENV, TORCH=cpu, PEERS=1, ARGS.
SHELL := bash
PROFILE ?= sandbox
FRESH ?=
DATA ?= data
RUNS ?= runs
OUT ?= $(if $(filter sandbox,$(PROFILE)),figures,figures/$(PROFILE))
ARGS ?=
PYTHON ?= python3
VENV ?= .venv
TORCH ?=
PEERS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COURSE := $(VENV)/.course
S4D := $(BIN)/python -m s4d

.DEFAULT_GOAL := help
.PHONY: help venv reproduce smoke verify figures test test-all soak bench gpu-check lab book assignments course-test paper lint strip pins clean

help: ## this list
	@echo "make reproduce [PROFILE=sandbox|night|gpu|paper] [FRESH=1] [DATA=data] [OUT=figures]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' Makefile

venv: $(STAMP) ## the environment in .venv, from the exact pins of requirements.txt

# TORCH=cpu: PyTorch's build without CUDA (version 2.15.0+cpu, which pip prefers), without CUDA's libraries.
ifeq ($(TORCH),cpu)
CPU_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu
LEAVE_OUT := ^(nvidia|cuda|triton)
else
LEAVE_OUT := ^$$
endif

# pip would compile all files one after another, for a minute.
# The stamp is written last: a failing installation leaves none and is done again by the next call.
$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is missing or older than Python 3.11: install a newer one, or name it as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@rm -f $(STAMP)
	@echo "installing $$(grep -c == requirements.txt) pinned packages into $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@grep -vE '$(LEAVE_OUT)' requirements.txt > $(VENV)/pins.txt
	@set -o pipefail; pip="$(BIN)/python -m pip install --no-deps --no-compile --disable-pip-version-check --progress-bar off $(CPU_INDEX)"; \
	  grep -E '^(nvidia|cuda)' $(VENV)/pins.txt > $(VENV)/cuda.txt; grep -vE '^(nvidia|cuda)' $(VENV)/pins.txt > $(VENV)/rest.txt; \
	  { trap 'kill $$! 2>/dev/null || true' INT TERM EXIT; $$pip -r $(VENV)/cuda.txt & $$pip -r $(VENV)/rest.txt && wait $$!; } \
	  | awk '/^Collecting/ && ++n % 20 == 0 {print "  " n " packages looked up"} /Downloading .*[0-9][0-9][0-9]\.?[0-9]* MB/ {print "  " $$0} \
	         /^Installing/ {print "  unpacking"} {fflush()}'
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

reproduce: $(STAMP) ## every figure and table, from nothing; a second call redoes only what changed
	@$(S4D) reproduce --profile $(PROFILE) --data "$(DATA)" --runs "$(RUNS)" --out "$(OUT)" $(if $(filter-out 0,$(FRESH)),--fresh) $(ARGS)

smoke: $(STAMP) ## the same in two minutes with the smallest settings, into build/smoke/out
	@$(S4D) reproduce --profile smoke --data "$(DATA)" --runs "$(RUNS)" --out build/smoke/out $(if $(filter-out 0,$(FRESH)),--fresh) $(ARGS)

verify: $(STAMP) ## every number of the last run of PROFILE against the last commit
	@$(S4D) verify --profile $(PROFILE) $(ARGS)

figures: $(STAMP) ## the figures that need only their csv, drawn again from OUT/source_data; a minute
	@$(S4D:s4d=s4d.study.figures) "$(OUT)"

test: $(STAMP) ## the test suite without the slow part
	@$(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

test-all: $(STAMP) ## every test
	@$(BIN)/python -m pytest $(ARGS)

soak: $(STAMP) ## the long tests of training: kill points, 2 000 steps, four processes; under 15 minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/soak.py -s $(ARGS)

bench: $(STAMP) ## training steps beside a plain reference; PEERS=1: and VideoMAE; ARGS="--device cuda"
	@$(S4D) bench $(if $(filter-out 0,$(PEERS)),--peers) $(ARGS)

gpu-check: ## what a GPU says of this project, in eight minutes, into figures/gpu; needs no codecs
	@$$(command -v $(BIN)/python || command -v $(PYTHON)) tests/gpu_check.py $(ARGS)

lab: $(STAMP) ## JupyterLab on the notebooks
	@$(BIN)/jupyter lab $(ARGS) notebooks

BOOK := build/book
book: $(STAMP) ## the executed notebooks of PROFILE and the manuals as an HTML book, into build/book
	@$(BIN)/python -c 'import sphinx, myst_nb, furo, latex2mathml' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements-book.txt
	@rm -rf $(BOOK) && mkdir -p $(BOOK)/source/notebooks && cp -r docs/. $(BOOK)/source && cp build/$(PROFILE)/*.ipynb $(BOOK)/source/notebooks 2>/dev/null || { \
	  echo "build/$(PROFILE) holds no executed notebooks: run make reproduce PROFILE=$(PROFILE) first" >&2; exit 1; }
	@$(BIN)/python -m sphinx -q -W --keep-going -b html $(BOOK)/source $(BOOK)/html && echo "$(BOOK)/html/index.html"

# nbgrader and what it adds go into the same environment; their pins touch none of requirements.txt.
$(COURSE): $(STAMP) requirements-course.txt
	@echo "installing nbgrader into $(VENV) (once)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet $(CPU_INDEX) -r $(VENV)/pins.txt -r requirements-course.txt || { \
	  echo "nbgrader is missing and could not be installed from requirements-course.txt: see pip's message above" >&2; exit 1; }
	@touch $(COURSE)

assignments: $(COURSE) ## the student versions of the masters in course/source, into notebooks/exercises
	@rm -rf course/release
	@cd course && "$(abspath $(BIN))/python" -m nbgrader generate_assignment '*' --no-db --log-level=WARN
	@rm -f notebooks/exercises/*.ipynb
	@cp course/release/*/*.ipynb notebooks/exercises && rm -r course/release
	@ls notebooks/exercises/*.ipynb

course-test: $(COURSE) ## run every solution, wrong answer and alternative of the exercises; four minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/course.py $(ARGS)

paper: ## paper/main.pdf from figures/; needs LaTeX
	@test -f figures/tables/numbers.tex || { echo "figures/tables/numbers.tex is missing: run make reproduce first" >&2; exit 1; }
	@cd paper && if command -v latexmk >/dev/null; then latexmk -pdf -interaction=nonstopmode -halt-on-error -quiet main.tex; \
	elif command -v pdflatex >/dev/null && command -v bibtex >/dev/null; then \
	  run="pdflatex -interaction=batchmode -halt-on-error main.tex"; $$run && bibtex -terse main && $$run && $$run; \
	else echo "no LaTeX here: install latexmk and pdflatex, on Debian and Ubuntu with: apt install latexmk texlive-latex-recommended, \
	on macOS with MacTeX, on Windows with MiKTeX; then call make paper again" >&2; exit 1; fi

lint: $(STAMP) ## ruff on all code; notebooks must be stripped
	@$(BIN)/ruff check .
	@$(BIN)/nbstripout --keep-id --verify $$(git ls-files '*.ipynb') || { echo "make strip removes the outputs" >&2; exit 1; }

strip: $(STAMP) ## remove outputs from the notebooks before a commit
	@find notebooks course -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*' -exec $(BIN)/nbstripout --keep-id {} +

pins: ## rewrite environment.yml from requirements.txt
	@{ echo "# Conda's Python with the pins of requirements.txt; written by \`make pins\`, then: pip install --no-deps -e ."; \
	   printf 'name: s4d\nchannels: [conda-forge, nodefaults]\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n'; \
	   grep == requirements.txt | sed "s/.*/      - '&'/"; } > environment.yml.new && mv environment.yml.new environment.yml

clean: ## remove build/ and caches; data/, runs/, figures/ and .venv/ stay
	@rm -rf build .pytest_cache *.egg-info
	@find s4d tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
