# Targets do their own set-up (scripts/setup): apt packages and a .venv, only what is missing. `make help` lists them.

BIN := .venv/bin
FOR_USER := scripts/for-user
CONFIG ?= configs/lab.yaml
PYTEST_ARGS ?=
CONFORMANCE_ARGS ?=
SOAK_ARGS ?=

.PHONY: help run setup check test conformance soak bench bench-guest guest-test docker-test clean root
help:
	@echo "sudo make run          three hosts in namespaces, the switch and an L2-learning controller, with real traffic, until Ctrl-C"
	@echo "                       ONCE=1 shows the traffic once and exits 0 only if all of it worked; CONFIG=FILE for another lab"
	@echo "sudo make test         everything: check, then all tests (PYTEST_ARGS='-k name' for some of them)"
	@echo "make check             ruff, ruff format, mypy --strict, import-linter"
	@echo "sudo make conformance  Ryu's switch tests of OpenFlow 1.3 (CONFORMANCE_ARGS='--target ovs' for Open vSwitch beside it)"
	@echo "sudo make soak         a random life of the switch, for ten minutes (SOAK_ARGS='--minutes 60 --seed 7')"
	@echo "sudo make bench        measures against the kernel's and Open vSwitch's ways"
	@echo "sudo make bench-guest  counts instructions a packet beside Open vSwitch's kernel module, in guests with other kernels"
	@echo "sudo make guest-test   runs tests/bpf and tunnels on Linux 6.1, 6.12 and a newer kernel than most have, in guests (PYTEST_ARGS='-k name')"
	@echo "sudo make docker-test  builds the image and forwards packets in containers, with a Docker daemon of its own"
	@echo "sudo make setup        only the set-up that run and test do themselves"
	@echo "make clean             removes .venv, caches and build output"

root:
	@[ "$$(id -u)" = 0 ] || { echo "make $(MAKECMDGOALS) needs root (network namespaces and BPF): sudo make $(MAKECMDGOALS)" >&2; exit 1; }

run: root
	@scripts/setup run
	@$(FOR_USER) $(BIN)/ofswitch lab $(CONFIG) $(if $(filter-out 0,$(ONCE)),--once)

setup: root
	@scripts/setup test

check:
	@scripts/setup check
	$(FOR_USER) $(BIN)/ruff check .
	$(FOR_USER) $(BIN)/ruff format --check .
	$(FOR_USER) $(BIN)/mypy --strict
	$(FOR_USER) $(BIN)/lint-imports

test: root setup check
	$(FOR_USER) $(BIN)/python -m pytest $(PYTEST_ARGS)

conformance: root setup
	$(FOR_USER) $(BIN)/python tests/conformance/run.py $(CONFORMANCE_ARGS)

soak: root setup
	$(FOR_USER) $(BIN)/python tests/soak/run.py $(SOAK_ARGS)

bench: root
	@scripts/setup bench
	$(FOR_USER) $(BIN)/python tests/bench/run.py

bench-guest: root
	@scripts/setup guest
	$(FOR_USER) $(BIN)/python tests/guest/run.py bench

guest-test: root
	@scripts/setup guest
	$(FOR_USER) $(BIN)/python tests/guest/run.py test $(if $(PYTEST_ARGS),-- /source/tests/bpf $(PYTEST_ARGS))

docker-test: root
	@scripts/setup docker
	$(FOR_USER) /usr/bin/python3 tests/docker/run.py

clean:
	rm -rf .venv .venv-faucet build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
