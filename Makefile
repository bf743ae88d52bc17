# make search, make final, make test: each installs first if needed. ARGS passes options on, for example
#   make search ARGS="dataset=cifar10 dataset.root=data"
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
RUN = $(VENV)/bin/python
INSTALLED = $(VENV)/.installed

.PHONY: install search final test test-slow methods lint clean
install: $(INSTALLED)

# torch comes first and alone, so that nothing installed later can bring in a second one.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: Python 3.11 or 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); pass PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[scripts,test,lint]'
	$(RUN) -m pip check
	@touch $@

search: $(INSTALLED)
	$(RUN) train_search.py $(ARGS)

final: $(INSTALLED)
	$(RUN) train_final.py $(ARGS)

# A process for each core, with one thread.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile $(ARGS)

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile -m slow $(ARGS)

# The table of methods, from the tests that speak of them: about half an hour on one core.
methods: $(INSTALLED)
	mkdir -p build
	-$(RUN) -m pytest -m "equation and not slow" --junitxml=build/equations.xml
	-$(RUN) -m pytest tests/test_presets.py --junitxml=build/presets.xml
	-$(RUN) -m pytest tests/test_planted.py -m "slow or not slow" --junitxml=build/planted.xml
	$(RUN) -m benchmarks.methods build/equations.xml build/presets.xml build/planted.xml

lint: $(INSTALLED)
	$(RUN) -m ruff check .

clean:
	rm -rf $(VENV) build *.egg-info
