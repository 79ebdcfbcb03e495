# `make demo` and `make test` set everything up by themselves on a fresh Debian 12 machine (root).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc)
# Without the compiled files of tests and sources, each worker compiles all of them anew.
unexport PYTHONDONTWRITEBYTECODE
# A group stays with one worker, and the order is that of tests/distribution.py.
GROUPS := --dist loadgroup --no-loadscope-reorder
# Where tests need namespaces; elsewhere none may (tests/repo).
NETNS_TESTS := tests/golden tests/netns tests/packets
# More than half of what a packet test does is waiting.
NETNS_JOBS ?= $(shell echo $$(( 2 * $(JOBS) )))

# What the tool needs, what building python-iptables needs, and what the proof needs.
PACKAGES := python3-venv python3-dev gcc libc6-dev \
	iptables ipset nftables iproute2 kmod procps util-linux conntrack \
	sipsak sip-tester sipvicious nmap kamailio kamailio-tls-modules openssl shellcheck dash
# Tests look at the report in a browser; the demo does without its 300 MB.
TEST_PACKAGES := $(PACKAGES) chromium ufw wireguard-go wireguard-tools

.PHONY: bench demo flood test lint type unit netns wheel packages test-packages clean

demo: $(VENV)/.ready
	$(BIN)/python examples/demo/demo.py

bench: $(VENV)/.ready
	$(BIN)/python bench/bench.py

flood: $(VENV)/.ready
	$(BIN)/python bench/flood.py

# mypy runs beside the packet tests, which wait half of the time, and prints when these are done.
# Unit tests run before: some of them have clocks that a full machine overruns.
# A shell's background has SIGINT ignored; with Ctrl-C pytest is to remove its namespaces.
test: lint unit | test-packages
	@log=$$(mktemp); beside="env --default-signal=INT $(MAKE) --no-print-directory"; \
	$$beside netns & netns=$$!; \
	$$beside type >"$$log" 2>&1 & checks=$$!; \
	trap : INT; trap 'kill $$netns $$checks' TERM; \
	wait $$netns; netns_status=$$?; \
	wait $$checks; checks_status=$$?; \
	wait; cat "$$log"; rm -f "$$log"; \
	[ $$checks_status = 0 ] || echo "make test: FAILED: type, right above"; \
	[ $$netns_status = 0 ] || echo "make test: FAILED: netns, above"; \
	[ $$netns_status$$checks_status = 00 ]

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.ready
	$(BIN)/mypy

unit: $(VENV)/.ready
	$(BIN)/pytest -n $(JOBS) $(GROUPS) -m "not netns"

netns: $(VENV)/.ready | test-packages
	$(BIN)/pytest -n $(NETNS_JOBS) $(GROUPS) -m netns --durations=20 $(NETNS_TESTS)

wheel: $(VENV)/.ready
	$(BIN)/python -m build --wheel

$(VENV)/.ready: pyproject.toml | packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# One after the other: apt has a lock.
test-packages: | packages
test-packages: wanted := $(TEST_PACKAGES)
packages: wanted := $(PACKAGES)
packages test-packages:
	@missing=$$(for name in $(wanted); do dpkg -s $$name >/dev/null 2>&1 || echo $$name; done); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
