# make caption   a runtime environment, and a sentence for each sample photo
# make test      an environment with everything; lint, types and the default tests
# make slow      the tests that take minutes
# make test-optimum   what Optimum does with a folder, in an environment of its own
# make test-node      what transformers.js does with it; needs Node.js and its npm
# make lint      ruff and mypy only
# make clean     removes the environments and every cache
#
# Both environments hold an installed copy of the package, never the checkout itself: only an
# installed copy has runtime/, distill/ and convert/ under the names that they are imported by.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
SOURCES := $(shell find nanocap runtime distill convert -type f -not -path '*/__pycache__/*')
FRAME := pyproject.toml setup.py constraints.txt

RUNTIME := .venv-runtime
TEST := .venv-test
OPTIMUM := .venv-optimum
INTEROP := tests/convert/huggingface
# What building leaves behind: files deleted since then would get into the next wheel.
LEFT := build nanocap.egg-info

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
# Tests kill processes and fill disks: none shall leave a module half compiled in the checkout.
export PYTHONDONTWRITEBYTECODE := 1
# For tests that import onnxruntime before nanocap.
export ORT_DISABLE_TELEMETRY := 1

# A process a core, each with one thread: as many threads as cores in each would fight. Tests of one
# file share what they build, so they stay together. A process that dies ends the run at once: pytest
# may wait for its tests forever.
PARALLEL := -n auto --dist loadfile --max-worker-restart 0 --durations 15
# For tests/conftest.py: when to begin no further test, and what decides the order of the files.
slow: export TESTS_UNTIL := $(or $(TESTS_UNTIL),inf)
slow: export TESTS_ORDER := $(TESTS_ORDER)
test slow: export OMP_NUM_THREADS := 1

.PHONY: caption test slow test-optimum test-node lint clean

caption: $(RUNTIME)/package.stamp
	$(RUNTIME)/bin/nanocap caption samples/photos

test: lint
	$(TEST)/bin/pytest $(PARALLEL)

slow: $(TEST)/package.stamp
	$(TEST)/bin/pytest $(PARALLEL) --no-loadscope-reorder -m slow

test-optimum: $(OPTIMUM)/package.stamp
	$(OPTIMUM)/bin/pytest -m "optimum or not slow and not node" $(INTEROP)

test-node: $(TEST)/package.stamp $(INTEROP)/node/node_modules
	$(TEST)/bin/pytest -m node $(INTEROP)

# mypy runs inside the environment's folder: from here it would find the checkout's nanocap/ first.
lint: $(TEST)/package.stamp
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	cd $(TEST) && bin/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p nanocap

clean:
	rm -rf $(RUNTIME) $(TEST) $(OPTIMUM) $(INTEROP)/node/node_modules $(LEFT) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(RUNTIME)/environment.stamp: $(FRAME)
	$(PYTHON) -m venv --clear $(RUNTIME)
	rm -rf $(LEFT)
	$(RUNTIME)/bin/pip install --quiet .
	rm -rf $(LEFT)
	touch $@

# torch goes in first and pinned, so that nothing after it brings another one.
$(TEST)/environment.stamp: $(FRAME)
	$(PYTHON) -m venv --clear $(TEST)
	$(TEST)/bin/pip install --quiet torch==2.13.0
	rm -rf $(LEFT)
	$(TEST)/bin/pip install --quiet ".[distill,teachers,ray,convert,coreml,executorch,eval,heic,test]"
	rm -rf $(LEFT)
	touch $@

# Optimum holds transformers below 4.58.
$(OPTIMUM)/environment.stamp: $(FRAME) $(INTEROP)/optimum-constraints.txt
	$(PYTHON) -m venv --clear $(OPTIMUM)
	PIP_CONSTRAINT=$(CURDIR)/$(INTEROP)/optimum-constraints.txt $(OPTIMUM)/bin/pip install --quiet torch==2.13.0
	rm -rf $(LEFT)
	PIP_CONSTRAINT=$(CURDIR)/$(INTEROP)/optimum-constraints.txt $(OPTIMUM)/bin/pip install --quiet ".[optimum]" pytest
	rm -rf $(LEFT)
	touch $@

$(INTEROP)/node/node_modules: $(INTEROP)/node/package-lock.json
	cd $(INTEROP)/node && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

%/package.stamp: %/environment.stamp $(SOURCES)
	rm -rf $(LEFT)
	$*/bin/pip install --quiet --no-deps --force-reinstall .
	rm -rf $(LEFT)
	touch $@
