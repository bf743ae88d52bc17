# make search, make final, make test: each installs first if needed. ARGS passes options on, for example
#   make search ARGS="dataset=cifar10 dataset.root=data"
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
# make install LOCK=requirements.lock installs nothing but files whose SHA-256 stands there; make lock writes it (UV: how uv is called).
LOCK ?=
UV ?= uv
PIP = $(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
RUN = $(VENV)/bin/python
INSTALLED = $(VENV)/.installed

.PHONY: install lock search final test test-slow fuzz coverage mutation bench-check methods docs pictures lint clean
install: $(INSTALLED)

# torch comes first and alone, so that nothing installed later can bring in a second one. With a lock, setuptools comes first, checked like the
# rest: a package that comes as source is built with it, where pip would fetch one unseen.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: Python 3.11 or 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); pass PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
ifeq ($(LOCK),)
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e '.[scripts,test,lint]'
else
	@awk '/^setuptools==/ {on = 1} on {print} on && !/\\$$/ {exit}' $(LOCK) > $(VENV)/setuptools.lock
	$(PIP) --require-hashes --no-deps --only-binary :all: -r $(VENV)/setuptools.lock
	$(PIP) --require-hashes --no-build-isolation -r $(LOCK)
	$(PIP) --no-deps --no-build-isolation -e .
endif
	$(RUN) -m pip check
	@touch $@

# For all systems and both versions of Python. A build of torch that lies elsewhere: make lock OUT=cpu.lock UV_ARGS="--find-links FOLDER"
OUT ?= requirements.lock
UV_ARGS ?= --universal
lock:
	$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock' --no-emit-index-url --no-emit-find-links \
	  $(UV_ARGS) --extra scripts --extra test --extra lint -c constraints.txt setup.cfg -o $(OUT)

# A space in which half of the candidates can only do harm, and alphas that learn fast: a search of half a minute that really decides
# (python -m benchmarks.demonstration). ARGS that choose a space, a data set or an experiment take its place.
DEMONSTRATION = space=s4 alpha_optimizer.lr=1e-2
search: $(INSTALLED)
	$(RUN) train_search.py $(if $(filter space=% dataset=% experiment=%,$(ARGS)),,$(DEMONSTRATION)) $(ARGS)

final: $(INSTALLED)
	$(RUN) train_final.py $(ARGS)

# A process for each core, with one thread.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile $(ARGS)

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile -m slow $(ARGS)

# Every reader of what comes from outside, SECONDS each: an hour by default. What is found lies in build/fuzz, and how to see it again is
# printed. ARGS: names of single readers.
SECONDS ?= 60
fuzz: $(INSTALLED)
	$(PIP) -c constraints.txt -e '.[fuzz]'
	OMP_NUM_THREADS=1 $(RUN) -m tests.fuzzing.longer --seconds $(SECONDS) $(ARGS)

# Which lines and branches no test reaches, and the share that they do, by room: the default suite, which takes one and a half times as long
# then (sys.monitoring, which costs less, tells branches from Python 3.14 on). With ARGS, files of tests for example, and FLOOR=0, of a part.
FLOOR ?= 95
coverage: $(INSTALLED)
	$(PIP) -c constraints.txt -e '.[coverage]'
	rm -rf build/coverage
	mkdir -p build/coverage
	-OMP_NUM_THREADS=1 $(RUN) -m coverage run -m pytest -n auto --dist loadfile $(ARGS)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage json --quiet -o build/coverage/coverage.json
	$(RUN) -m benchmarks.covered build/coverage/coverage.json --floor $(FLOOR)

# How many of 300 small faults of the mathematical core its tests find: about 15 minutes on one core. After tests were added
# those that survived alone: make mutation ARGS="--earlier benchmarks/results/mutation.json --json benchmarks/results/mutation.json"
mutation: $(INSTALLED)
	$(PIP) -c constraints.txt -e '.[coverage]'
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.mutation $(ARGS)

# Whether a change made a step slower, in minutes: against where the branch left main, the commit before, or ARGS=COMMIT. Not in CI: it is a
# measurement, which a busy machine makes longer.
bench-check: $(INSTALLED)
	$(RUN) -m benchmarks.check $(ARGS)

# The table of methods, from the tests that speak of them: about half an hour on one core.
methods: $(INSTALLED)
	mkdir -p build
	-$(RUN) -m pytest -m "equation and not slow" --junitxml=build/equations.xml
	-$(RUN) -m pytest tests/test_presets.py --junitxml=build/presets.xml
	-$(RUN) -m pytest tests/test_planted.py -m "slow or not slow" --junitxml=build/planted.xml
	$(RUN) -m benchmarks.methods build/equations.xml build/presets.xml build/planted.xml

# The pages as a site, in build/site; a link that leads nowhere is an error.
docs: $(INSTALLED)
	$(PIP) -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet

# The pictures of docs/pictures, of a search that is made for them: its page as a browser shows it, and its cell over the epochs.
CHROMIUM ?= chromium
PICTURED = build/pictures
pictures: $(INSTALLED)
	rm -rf $(PICTURED)
	$(RUN) train_search.py $(DEMONSTRATION) output=$(PICTURED) threads=1 wandb.mode=disabled
	$(CHROMIUM) --headless $(if $(filter 0,$(shell id -u)),--no-sandbox) --disable-gpu --hide-scrollbars --window-size=1200,1500 \
	  --screenshot=docs/pictures/search.png "file://$(CURDIR)/$$(ls $(PICTURED)/*/report.html)"
	$(RUN) -m supernet.draw $(PICTURED)/*_search_* -o docs/pictures/search.gif --dpi 60

lint: $(INSTALLED)
	$(RUN) -m ruff check .

clean:
	rm -rf $(VENV) build *.egg-info
