# `make help` lists what there is. Every target makes its own environment in .venv first.
# Another interpreter: make lab PYTHON=python3.12

PYTHON ?= python3
PYTEST_WORKERS ?= 2

VENV := .venv
PY := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)/python
READY := $(VENV)/sedd-mini-ready
HTML := chapters/_build/html
# TERM is also the name of the terminal, in the environment: only make's own command line counts.
TERM_FILE := $(if $(filter command line,$(origin TERM)),$(TERM))
COURSE := chapters/assignments/course.py
# Those that have a source: not a reader's own copies.
NOTEBOOKS = $(patsubst %.py,%.ipynb,$(sort $(wildcard chapters/[0-9][0-9]_*.py chapters/solutions/[0-9][0-9]_*.py)))
# What JupyterLab's list of files leaves out: sources, what builds the book, what was built.
HIDDEN := [0-9][0-9]_*.py build.py conf.py works.py matplotlibrc \
	index.md notation.md glossary.md library.md bibliography.md _* __pycache__ logs results *.egg-info

.DEFAULT_GOAL := help
.PHONY: help lab update figures book html test results lock assignments submitted grade test-course

help:
	@echo "make lab    open JupyterLab on chapters/           (LAB='--no-browser --port 8890' adds options)"
	@echo "make update   pull what is new; notebooks that you ran or changed are kept as my_NN_name_DATE"
	@echo "make book   run every chapter, then build the HTML book"
	@echo "make html   only rebuild the HTML, from the notebooks as they are"
	@echo "make test   style, notebooks in step, all tests, and every notebook once more"
	@echo "make figures  draw the pictures of README again"
	@echo "make results  what is missing in chapters/results, then the ledger: 4 hours for all of it, goes on"
	@echo "               after Ctrl-C. Delete a file there to make it again; runs/rivals, to train again"
	@echo "make assignments   write the course's release for students   (TERM=file: your own numbers)"
	@echo "make grade SUBMITTED=folder   grade folder/student/assignment1.ipynb, ..."
	@echo "make test-course   all assignments and all damaged submissions through nbgrader"
	@echo "make lock   resolve requirements.lock again        (UPGRADE=--upgrade takes the newest versions)"

# The environment: built once, and again when what it is built from changes.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; ok = (3, 11, 5) <= v[:3] < (3, 14); \
	ok or sys.exit("SEDD-mini needs Python 3.11.5 up to 3.13, and $(PYTHON) is " + sys.version.split()[0] \
	+ ". Name another: make ... PYTHON=python3.12")'
	@echo "Setting up $(VENV): the first time takes some minutes."
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[all]"
	@touch $@

lab: $(READY)
	$(PY) -m jupyter lab $(foreach name,$(HIDDEN),--ContentsManager.hide_globs='$(name)') \
		--FileContentsManager.preferred_dir=chapters \
		--LabApp.default_url=/lab/tree/chapters/00_start_here.ipynb \
		$$([ "$$(id -u)" != 0 ] || echo --allow-root) $(LAB)

# A notebook that was run and saved is kept under another name, since git would not replace it.
update:
	@for file in $$(git diff HEAD --name-only -- 'chapters/*.ipynb'); do \
		mine="$$(dirname $$file)/my_$$(basename $$file .ipynb)_$$(date +%Y-%m-%d_%H%M%S).ipynb"; \
		cp "$$file" "$$mine" && git checkout -q HEAD -- "$$file" && echo "Your $$file is now $$mine"; \
	done
	git pull --ff-only

book: $(READY)
	$(PY) chapters/build.py
	@$(MAKE) --no-print-directory html

# -E: read everything anew; -W: a broken reference is an error.
html: $(READY)
	$(PY) -m sphinx -E -W --keep-going -q -b html chapters $(HTML)
	@echo "The book: $(CURDIR)/$(HTML)/index.html"

test: export HF_HUB_OFFLINE = 1
test: $(READY)
	$(PY) -m ruff check .
	$(PY) chapters/build.py --check
	$(PY) -m pytest --numprocesses $(PYTEST_WORKERS) --dist loadscope \
		--nbval-lax --nbval-current-env tests $(NOTEBOOKS)

figures: $(READY)
	$(PY) figures/make.py
	$(PY) chapters/build.py --only 01

results: $(READY)
	$(PY) tests/benchmarks/results.py

assignments: $(READY)
	$(PY) $(COURSE) assignments $(if $(TERM_FILE),--term "$(TERM_FILE)")

submitted:
	@test -d "$(SUBMITTED)" || { echo "Say which folder to grade: make grade SUBMITTED=folder"; exit 1; }

grade: submitted $(READY)
	$(PY) $(COURSE) grade "$(SUBMITTED)"

test-course: export HF_HUB_OFFLINE = 1
test-course: export SEDD_MINI_COURSE = 1
test-course: $(READY)
	$(PY) -m pytest tests/test_course.py

lock: $(READY)
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile pyproject.toml --output-file requirements.lock $(UPGRADE) \
		--universal --python-version 3.11.5 --fork-strategy fewest --all-extras \
		--no-annotate --no-python-downloads --custom-compile-command "make lock" --quiet
