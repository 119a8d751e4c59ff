# make setup: into .venv · make demo: the whole pipeline, live (ARGS=--keep leaves it running)
# make check: in a minute · make test: in some minutes · make nightly: in hours

# Any Python from 3.11; what a version manager only pretends to have is passed over.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
PACKAGES := .venv/.packages
READY := .venv/.ready
BROWSER := .venv/.browser
TODAY := $(shell date -u +%Y%m%d)
# What servers under test write goes to memory where there is room: on a disk a database takes four times as long to make.
IN_MEMORY := $(shell test -w /dev/shm && df -Pk /dev/shm | awk 'NR == 2 && $$4 > 4000000 {print "TMPDIR=/dev/shm"}')
# Files as they are listed, not those with most tests first: the slowest, which start whole stacks, have few.
TESTS := $(IN_MEMORY) $(BIN)/pytest --no-loadscope-reorder
# What runs on the compiled modules, where there is a compiler; all else on the plain ones; what tests modules alone, on either.
OF_COMPILED := tests/acceptance tests/integration/senders tests/integration/router/test_router.py $(patsubst %,tests/integration/test_%.py, \
	attempts client_certificates dispatcher_processes metrics metrics_lag orphans recorder wheel)
OF_BOTH := tests/unit tests/integration/test_dispatcher.py

# Some hundred processes that tests start would each compile their sources again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup compiled wheel demo check test test-plain test-compiled nightly test-browser screenshots torture models hostile lint format lint-api audit sbom bench bench-builds \
	bench-isolation bench-scale bench-bounded bench-few-workers bench-api bench-dashboard bench-replay clean

# Compiling takes a minute, and nothing but speed waits for it: so the demo does not. Kafka's AOT cache is made beside it.
setup:
	@$(MAKE) --no-print-directory -j2 OR_PLAIN=--or-plain $(READY) compiled
	@echo "Ready. Next: make demo, make test, or .venv/bin/go2hooks --help"

$(PACKAGES): pyproject.toml constraints.txt tools/bootstrap.py
	@test -n "$(PYTHON)" || { \
	  echo "Python 3.11 or newer is needed; $$(python3 --version 2>/dev/null || echo no python3) is here." >&2; \
	  echo "Install one (apt install python3.11, brew install python@3.13, python.org), then: make setup PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	@"$(PYTHON)" tools/bootstrap.py
	@touch $@

$(READY): $(PACKAGES) go2hooks/devstack/kafka-jars.txt
	@$(BIN)/python -m go2hooks.devstack.aot_cache
	@touch $@

# The modules that every event and delivery passes, as machine code, unless there is a build of exactly these sources already.
compiled: $(PACKAGES)
	@$(BIN)/python tools/compile.py $(OR_PLAIN)

# What is installed elsewhere, into dist: a wheel for this Python and machine with those compiled modules, and a plain one for any.
wheel: $(PACKAGES)
	@HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m hatchling build --target wheel
	@$(BIN)/python -m hatchling build --target wheel

# Everything that can fail does, and the proof that nothing was lost: make torture ARGS="--minutes 20 --seed 7"
torture: $(READY)
	@$(BIN)/python -m bench.torture $(ARGS)

# Every property and model, 10,000 examples each (HYPOTHESIS_EXAMPLES), and what was run: an hour. One: ARGS="-k Lanes"
models: $(READY)
	HYPOTHESIS_PROFILE=long $(TESTS) -n 2 -q -m hypothesis --hypothesis-show-statistics $(ARGS)

# The API under attack: a hand-made list, what its OpenAPI document suggests, guessed keys, slow clients.
hostile: $(READY)
	@$(BIN)/python bench/hostile.py $(ARGS)

demo: $(READY)
	@$(BIN)/go2hooks demo $(ARGS)

# What is quick: on the modules as they are, with few made-up examples.
check: $(READY) lint
	@HYPOTHESIS_PROFILE=brief $(TESTS) -n 2 -q tests/unit $(ARGS)

# Everything once, and what tests modules alone on either build. The halves run side by side, the second once it has been compiled.
test:
	@$(MAKE) --no-print-directory -j2 OR_PLAIN=--or-plain test-plain test-compiled

test-plain: $(READY) lint
	@GO2HOOKS_BUILD=plain $(TESTS) -n 2 $(OF_COMPILED:%=--ignore %) $(ARGS)

test-compiled: $(READY) compiled
	@HYPOTHESIS_PROFILE=brief $(TESTS) -n 2 $(OF_COMPILED) $(OF_BOTH) $(ARGS)

$(BROWSER): $(PACKAGES)
	@$(BIN)/pip --disable-pip-version-check install -q --constraint constraints.txt --no-build-isolation --editable ".[dev,browser]"
	@touch $@

# The dashboard in a real Chromium, before the whole stack. Without any Chromium it fails.
test-browser screenshots: OF_BROWSER = CHROMIUM=$$($(BIN)/python tools/chromium.py) && export CHROMIUM && GO2HOOKS_BUILD=plain $(TESTS)
test-browser: $(READY) $(BROWSER)
	@$(OF_BROWSER) tests/browser $(ARGS)

# The pictures of README and docs/dashboard.md, of a stack that was seeded for them.
screenshots: $(READY) $(BROWSER)
	@$(OF_BROWSER) -q tests/browser/screenshots.py

# What is long and random, an hour and a half: each test on the build that `make test` leaves out, bugs that torture must find, properties
# and models, the API under attack, damaged messages, and twenty minutes of torture.
nightly: compiled
	@GO2HOOKS_BUILD=plain $(TESTS) -n 2 $(OF_COMPILED)
	@$(TESTS) -n 2 $(OF_COMPILED:%=--ignore %)
	@GO2HOOKS_TEST_PLANTS=1 $(TESTS) -k planted tests/acceptance/test_torture_short.py
	@$(MAKE) --no-print-directory lint-api models hostile
	@$(BIN)/python bench/fuzz_codec.py --examples 1000000 --seed $(TODAY)
	@$(MAKE) --no-print-directory torture ARGS="--minutes 20 --seed $(TODAY)"

# The API's OpenAPI document by Spectral's rules. Needs npx.
lint-api: $(PACKAGES)
	@mkdir -p build && $(BIN)/python tools/openapi.py >build/openapi.json
	@npx --yes @stoplight/spectral-cli@6.16.3 lint --ruleset tools/spectral.yaml --fail-severity warn build/openapi.json

lint: $(PACKAGES)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Known vulnerabilities of what constraints.txt pins. Needs a package index that serves advisories; without one it fails,
# since a package that nobody could ask about is not a safe one (--strict; pip-audit alone would skip it and succeed).
audit: $(READY)
	@$(BIN)/python -m venv .venv/audit && .venv/audit/bin/pip install -q "pip-audit==2.10.1"
	@.venv/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip || { \
	  echo "The audit FAILED: a package is vulnerable, or could not be asked about; see above." >&2; exit 1; }

# What is installed, as CycloneDX; go2hooks itself is its root.
sbom: $(READY)
	@$(BIN)/python -m venv .venv/sbom && .venv/sbom/bin/pip install -q "cyclonedx-bom==7.5.0"
	@.venv/sbom/bin/cyclonedx-py environment .venv --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json
	@echo "sbom.cdx.json"

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# CPU per delivery as `go2hooks up` runs, compiled and plain, beside a bare ClientSession loop: three minutes.
bench-builds: compiled
	@$(BIN)/python bench/builds.py $(ARGS)

bench bench-isolation bench-scale bench-bounded bench-few-workers bench-api bench-dashboard bench-replay: OR_PLAIN := --or-plain

# Each prints tables and writes JSON and charts to bench/results; options by ARGS, such as ARGS=--quick.
bench: compiled
	@$(BIN)/python bench/pipeline.py $(ARGS)

bench-isolation: compiled
	@$(BIN)/python bench/isolation.py $(ARGS)

bench-scale: compiled
	@$(BIN)/python bench/router.py $(ARGS)
	@$(BIN)/python bench/retries.py $(ARGS)
	@$(BIN)/python bench/scale.py $(ARGS)

# Memory, descriptors and threads while a server is away, before a backlog, under hostile answers, over a long run: about 50
# minutes; ARGS="--only broker" runs one, also beside others: results are merged.
bench-bounded: compiled
	@$(BIN)/python bench/bounded.py $(ARGS)

# Web servers of one to eight workers under a burst and a stream, with one dispatcher and with two: nobody is disabled; eight minutes.
bench-few-workers: compiled
	@$(BIN)/python bench/few_workers.py $(ARGS)

# A replay of 100,000 events beside live traffic, its replayer killed twice: three minutes a round.
bench-replay: compiled
	@$(BIN)/python bench/replay.py $(ARGS)

# Each page of the dashboard with 5,000 webhooks and 1,000,000 attempts stored: p50, p95 and weight; two minutes.
bench-dashboard: compiled
	@$(BIN)/python bench/dashboard.py $(ARGS)

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
