# What a newcomer needs: `make run-broker` and `make test`. Everything else is for those who work on backtestr.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The TypeScript client, and the links to the Node that it is built and tested with (docs/decisions/0054).
TS := clients/typescript
NODE := $(VENV)/.node
NODE_MODULES := $(TS)/node_modules/.package-lock.json
IN_TS := PATH="$(abspath $(BIN)):$$PATH" npm --prefix $(TS) --silent
# The app: the page, and Electron around it (docs/electron.md).
APP := clients/app
APP_MODULES := $(APP)/node_modules/.package-lock.json
PAGE := clients/python/backtestr/ui/page/index.html
IN_APP := PATH="$(abspath $(BIN)):$$PATH" npm --prefix $(APP) --silent
ELECTRON := $(APP)/electron
ELECTRON_MODULES := $(ELECTRON)/node_modules/.package-lock.json
IN_ELECTRON := PATH="$(abspath $(BIN)):$$PATH" npm --prefix $(ELECTRON) --silent
IN_C := $(wildcard protocol/backtestr_protocol/wire/*.[ch])

# Where it is set, each of hundreds of processes that the tests start would compile all of our modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup compiled run-broker test test-all test-whole test-modules test-pure test-ts test-compiled lint lint-python lint-ts
.PHONY: types types-python types-ts imports cover schema build-ts clean
.PHONY: ui run-ui run-app test-app test-browser lint-app types-app
.PHONY: bench bench-rtt bench-pipelined bench-publishing bench-load bench-backtests bench-growth bench-node bench-tunnel bench-ui
.PHONY: bench-engine bench-sweep bench-sweep-broker bench-cluster bench-data bench-durability bench-curve bench-batching chaos parity

help:
	@echo "make run-broker    start the broker and its workers (sets everything up first)"
	@echo "make test          run the tests in Python: make test-whole with brokers and workers, make test-modules of single modules"
	@echo "make test-all      run these, those of the TypeScript client (make test-ts) and those of the app (make test-app)"
	@echo "make test-pure     run all those in Python in pure Python"
	@echo "make run-ui        build the app, start a broker if none is running, and open the app in a browser; make ui builds it alone"
	@echo "make run-app       start the app in Electron, or say how to get Electron's binary; make test-app tests it and the page"
	@echo "make test-browser  try the page in chromium before a real broker"
	@echo "make build-ts      build the package of the TypeScript client, in clients/typescript/dist"
	@echo "make compiled      compile the hot modules again after an edit, which has made them pure Python (docs/decisions/0049)"
	@echo "make test-compiled run the tests of properties and codecs with what is compiled"
	@echo "make lint types    what .ci/run checks besides"
	@echo "make bench         what everything costs beside its floor, in one table (benchmarks/README.md); ten minutes"
	@echo "make bench-rtt     round trips beside a raw pyzmq echo, NATS and Jupyter"
	@echo "make parity        the presets beside vectorbt and backtesting.py, the metrics beside empyrical"
	@echo "make bench-node    the TypeScript client: round trips, a million prices, a long result, its import and size"
	@echo "make bench-tunnel  the server of backtestr ui: round trips and a million prices through its tunnel, its start"
	@echo "make bench-ui      the app in chromium: first screen, a million bars, candles with fills, a thousand updates a second"
	@echo "make bench-engine  one backtest on 1M bars, direct, through the broker and beside vectorbt; how it scales"
	@echo "make bench-sweep   thousands of combinations beside vectorbt on one core, and the memory they take"
	@echo "make bench-sweep-broker  sweeps through a broker: cost beside the engine, two workers, memory, who waits"
	@echo "make bench-cluster  a sweep on a Dask scheduler and workers on this machine, beside the model of docs/scaling.md"
	@echo "make bench-durability  requests that wait for the disk, beside a bare commit"
	@echo "make bench-curve   what encryption costs, beside plain TCP"
	@echo "make bench-batching  settings of batching on a mixed load; what compression and columns cost and save"
	@echo "make bench-data    a million rows imported and refused, 100,000 bars with indicators asked for"
	@echo "make chaos         kills, stops, races, floods and hostile frames in full: what survives, and how long it takes"

setup: $(INSTALLED)

# One environment with everything that running and testing need, in the versions that constraints.txt names.
$(INSTALLED): pyproject.toml constraints.txt hatch_build.py protocol/build_extensions.py $(IN_C)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "backtestr needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[broker,engine,ui,dev]'
	$(BIN)/python -m backtestr --version
	@$(BIN)/python compile_hot_modules.py & compiling=$$!; $(BIN)/python -m backtestr_engine --warm && wait $$compiling
	@touch $@

# By hand after an edit, since it takes a while: until then Python uses the sources, and the version says so.
compiled: setup
	@$(BIN)/python compile_hot_modules.py --strict

run-broker: setup
	@exec $(BIN)/python -m backtestr_broker

# A Node of the path that is new enough, else that of a wheel. Only what is about TypeScript needs it.
$(NODE): constraints.txt $(TS)/tools/link_node.py | $(INSTALLED)
	@$(BIN)/python $(TS)/tools/link_node.py
	@touch $@

# In the versions of the lock file, and without running their scripts.
$(NODE_MODULES): $(TS)/package.json $(TS)/package-lock.json $(NODE)
	$(IN_TS) ci --ignore-scripts
	@touch $@

# All of them, with those of make test last.
test-all: setup
	@$(MAKE) --no-print-directory test-ts test-app
	@$(MAKE) --no-print-directory test

# All of them with the coverage of the core, or some: make test-ts TS_ARGS=tests/core
test-ts: setup $(NODE_MODULES)
	$(IN_TS) run test -- $(or $(TS_ARGS),--coverage)

# What a program installs, in clients/typescript/dist. Examples, chaos and benchmarks in Node use it.
build-ts: $(TS)/dist/index.mjs

$(TS)/dist/index.mjs: $(NODE_MODULES) $(TS)/tsdown.config.ts $(shell find $(TS)/src -name '*.ts')
	@$(IN_TS) run build > /dev/null
	@touch $@

# In the versions of their lock files, and without running their scripts.
$(APP_MODULES): $(APP)/package.json $(APP)/package-lock.json | $(TS)/dist/index.mjs
	$(IN_APP) ci --ignore-scripts
	@touch $@

# The page that `backtestr ui` serves, and that a wheel carries if it is there (docs/app.md).
ui: $(PAGE)

$(PAGE): $(APP_MODULES) $(TS)/dist/index.mjs $(APP)/vite.config.ts $(shell find $(APP)/renderer -type f)
	@$(IN_APP) run build > /dev/null
	@touch $@

# With options: make run-ui ARGS='--port 8000 --no-browser'
run-ui: setup ui
	@exec $(BIN)/python -m backtestr ui --start $(ARGS)

$(ELECTRON_MODULES): $(ELECTRON)/package.json $(ELECTRON)/package-lock.json | $(APP_MODULES)
	$(IN_ELECTRON) ci --ignore-scripts
	@touch $@

# It looks for Electron's binary first, which npm's package does not contain.
run-app: setup $(ELECTRON_MODULES)
	@$(IN_ELECTRON) start -- --check
	@$(IN_ELECTRON) run build > /dev/null
	@$(IN_ELECTRON) start

# The page's modules and those of Electron's processes; the app in a real Electron where BACKTESTR_ELECTRON names one.
test-app: setup $(ELECTRON_MODULES)
	$(IN_APP) run test
	$(IN_ELECTRON) run test

# The page in a real browser before a real broker (clients/app/tests/browser); APP_ARGS names files or, with -t, tests.
test-browser: setup ui
	$(IN_APP) run test:browser -- $(APP_ARGS)

lint-app: $(ELECTRON_MODULES)
	$(IN_APP) run lint
	$(IN_ELECTRON) run lint

types-app: $(ELECTRON_MODULES)
	$(IN_APP) run types
	$(IN_ELECTRON) run types

# Tests of modules run in pure Python: they replace parts of modules, which a compiled caller does not see. Those of the
# whole run with what is compiled, as users run it, and in pure Python where there is no C compiler; one file of them runs
# so everywhere. All in three processes, since many wait for a broker: those that share one run in one of them.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --durations 10
COMPILED := $(if $(shell command -v cc),compiled)
OF_MODULES := $(filter-out tests/integration/ tests/support/ tests/__pycache__/,$(wildcard tests/*/)) tests/test_layout.py
IN_BOTH := tests/integration/test_end_to_end.py

test: test-whole test-modules

test-whole: setup $(COMPILED) build-ts
	BACKTESTR_PURE=$(if $(COMPILED),0,1) $(PYTEST) tests/integration $(ARGS)

test-modules: setup build-ts
	BACKTESTR_PURE=1 $(PYTEST) $(OF_MODULES) $(IN_BOTH) $(ARGS)

# Everything in pure Python, as on a machine without a compiler.
test-pure: setup build-ts
	BACKTESTR_PURE=1 $(PYTEST) $(ARGS)

# The tests that compare what is compiled with its twin in Python, and the laws of both.
test-compiled: compiled build-ts
	BACKTESTR_PURE=0 $(PYTEST) tests/properties tests/protocol/wire tests/protocol/test_zmq_frames.py \
		tests/protocol/test_compiled_modules.py $(ARGS)

lint: lint-python lint-ts lint-app

lint-python: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-ts: $(NODE_MODULES)
	$(IN_TS) run lint

types: types-python types-ts types-app

types-python: setup
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks
	$(BIN)/mypy compile_hot_modules.py clients/typescript/tools/link_node.py

types-ts: $(NODE_MODULES)
	$(IN_TS) run types

imports: setup
	$(BIN)/lint-imports

cover: setup
	BACKTESTR_PURE=1 $(BIN)/python -m pytest --cov --cov-branch --cov-report=term-missing:skip-covered $(ARGS)

# One table of all that follows, up to bench-node. NATS, as a peer, needs the extra `bench`.
bench: setup build-ts
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-rtt: setup
	$(BIN)/python benchmarks/round_trips.py $(ARGS)

bench-pipelined: setup
	$(BIN)/python benchmarks/pipelined.py $(ARGS)

bench-publishing: setup
	$(BIN)/python benchmarks/publishing.py $(ARGS)

bench-load: setup
	$(BIN)/python benchmarks/under_load.py $(ARGS)

bench-backtests: setup
	$(BIN)/python benchmarks/whole_backtests.py $(ARGS)

bench-growth: setup
	$(BIN)/python benchmarks/growth.py $(ARGS)

bench-node: setup build-ts
	$(BIN)/python benchmarks/node_client.py $(ARGS)

bench-tunnel: setup build-ts
	$(BIN)/python benchmarks/ui_tunnel.py $(ARGS)

bench-ui: setup ui
	@$(IN_APP) run bench

# The lines about vectorbt need the extra `bench`: pip install -c constraints.txt -e '.[bench]'
bench-engine: setup
	$(BIN)/python benchmarks/engine.py $(ARGS)
	$(BIN)/python benchmarks/engine_scaling.py

# As bench-engine: vectorbt needs the extra `bench`. A longer look: make bench-sweep ARGS='--combinations 1000 100000'
bench-sweep: setup
	$(BIN)/python benchmarks/sweeps.py $(ARGS)

# One part of it: make bench-sweep-broker ARGS='--parts workers'
bench-sweep-broker: setup
	$(BIN)/python benchmarks/sweep_broker.py $(ARGS)

# ARGS='--workers 1 2 4': each is a process.
bench-cluster: setup
	$(BIN)/python benchmarks/cluster.py $(ARGS)

bench-data: setup
	$(BIN)/python benchmarks/data.py $(ARGS)

bench-durability: setup
	$(BIN)/python benchmarks/durability.py $(ARGS)

bench-curve: setup
	$(BIN)/python benchmarks/curve.py $(ARGS)

bench-batching: setup
	$(BIN)/python benchmarks/batching.py $(ARGS)
	$(BIN)/python benchmarks/compression.py $(ARGS)

# Everything that may go wrong, on purpose and in full: about a quarter of an hour. One of them: make chaos-state ARGS='--times 50'.
CHAOS := workers broker sweeps subscriber state frames values flood connections tables full_disk node

chaos: $(CHAOS:%=chaos-%)

chaos-node: build-ts

chaos-%: setup
	PYTHONPATH=benchmarks:tests $(BIN)/python benchmarks/chaos/$*.py $(ARGS)

# The presets beside the libraries they are named after; needs the extra `bench`.
parity: setup
	$(BIN)/python benchmarks/parity.py $(ARGS)

# What is generated from the contracts and committed; tests fail when it is out of date.
schema: setup
	$(BIN)/python -m backtestr_protocol.schema
	$(BIN)/python -m backtestr_protocol.typescript
	$(BIN)/python -m backtestr_protocol.metric_definitions > docs/metrics.md

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	rm -rf protocol/backtestr_protocol/wire/*.so protocol/backtestr_protocol/compiled
	find . -name __pycache__ -not -path './node_modules/*' -prune -exec rm -rf {} +
	rm -rf examples/zeromqjs/node_modules $(TS)/node_modules $(TS)/dist $(TS)/coverage
	rm -rf $(dir $(PAGE)) $(APP)/node_modules $(ELECTRON)/node_modules $(ELECTRON)/out $(ELECTRON)/packed
