# make setup · kube · istio · judges · image · check · test-fast · test · e2e · demo · bench · race · scale · soak · fuzz · plugin · generate · docs · release        (see docs/development.md)
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup kube istio judges programs image check test-fast test e2e demo bench race scale soak fuzz plugin generate docs release lock clean

PYTHON := /usr/bin/python3.11
VENV   := .venv
BIN    := $(VENV)/bin
PACKAGES := python3.11 python3.11-venv libpython3.11-dev libexpat1-dev zlib1g-dev gcc libc6-dev make clang-14 libclang-rt-14-dev \
	containerd runc containernetworking-plugins busybox-static etcd-server nftables libnftables1 iptables iproute2 procps util-linux openssl \
	buildah mmdebstrap libseccomp-dev graphviz fonts-dejavu-core curl netcat-openbsd bind9-dnsutils
LIBPYTHON = $(firstword $(wildcard /usr/lib/python3.11/config-3.11-*/libpython3.11.a))

setup: $(VENV)/.installed plugin build/istio-cni-python

# pip installs uv alone: uv takes a tenth of its time, keeps packages in a cache outside the tree, and compiles none. What most processes
# import is compiled here, before several would do it at once.
$(VENV)/.installed: build/.packages pyproject.toml tests/requirements.txt
	@echo "setup: the virtual environment $(VENV), from tests/requirements.txt (pinned and hashed)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed -n '/^uv==/,/[^\]$$/p' tests/requirements.txt | $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r /dev/stdin
	@$(BIN)/python -m tests.support.uv pip install --quiet --require-hashes -r tests/requirements.txt
	@$(BIN)/uv pip install --quiet --offline --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import aiohttp, hypothesis, jsonschema, kopf, kubernetes, prometheus_client, pytest, yaml'
	@touch $@

build/.packages: tests/setup-packages Makefile
	@mkdir -p build
	@tests/setup-packages $(PACKAGES)
	@touch $@

plugin: build/istio-cni

build/frozen.c build/constants.h &: plugin/frozen/freeze.py $(wildcard plugin/*.py) | build/.packages
	@echo "setup: the plugin build/istio-cni, frozen Python in one static file"
	@$(PYTHON) -B plugin/frozen/freeze.py build

CFLAGS := -O2 -Wall -Wextra -Werror -fstack-protector-strong -D_FORTIFY_SOURCE=2 -Ibuild -isystem /usr/include/python3.11
build/frozen.o: build/frozen.c
	@gcc $(CFLAGS) -c -o $@ $<

# The accelerator runs before the C library has started, so it can have nothing of it (plugin/frozen/start.c).
build/start.o: plugin/frozen/start.c plugin/frozen/accelerator.c plugin/frozen/accelerator.h plugin/frozen/own.h build/constants.h
	@gcc $(CFLAGS) -U_FORTIFY_SOURCE -mstack-protector-guard=global -fno-tree-loop-distribute-patterns -c -o $@ $<

# The plugin, and a variant without the accelerator (Python alone) for the tests.
build/istio-cni: ACCELERATED := -DACCELERATED -Wl,--entry=start
build/istio-cni: build/start.o
build/istio-cni build/istio-cni-python: plugin/frozen/main.c plugin/frozen/accelerator.h build/constants.h build/frozen.o
	@test -n "$(LIBPYTHON)" || { echo "make plugin: no libpython3.11.a under /usr/lib/python3.11, expected Debian's libpython3.11-dev (make setup installs it)"; exit 1; }
	@gcc $(CFLAGS) $(ACCELERATED) -static -s -Wl,--gc-sections -o $@.new $(filter %.c %.o,$^) $(LIBPYTHON) -lexpat -lz -lm 2>build/link.log || { cat build/link.log; exit 1; }
	@mv $@.new $@

kube: $(VENV)/.installed
	$(BIN)/python -m tests.programs.build kube

istio: $(VENV)/.installed
	$(BIN)/python -m tests.programs.build node istio

judges: $(VENV)/.installed
	$(BIN)/python -m tests.programs.build judges conformance

programs: $(VENV)/.installed
	$(BIN)/python -m tests.programs.build kube node istio judges conformance

image: $(VENV)/.installed
	$(BIN)/python -m tests.image.build

# A fresh clone takes mypy's cache over from the clone before, if that kept it before this one was made (LICENSE is as old as the clone).
# So all files here are newer than what the cache knows, and mypy, which trusts an equal size and time in seconds, compares their hashes.
TYPES := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/istio-cni/mypy.tar

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if [ ! -d .mypy_cache ] && [ -f $(TYPES) ] && [ LICENSE -nt $(TYPES) ]; then tar -xf $(TYPES); fi
	$(BIN)/mypy
	@if [ ! $(TYPES) -nt LICENSE ]; then mkdir -p $(dir $(TYPES)) && tar -cf $(TYPES).$$$$ .mypy_cache && mv $(TYPES).$$$$ $(TYPES); fi
	$(BIN)/lint-imports

# Tests wait for processes half of the time or more, so four workers keep two processors busy. A file, and as far as possible a folder,
# stays on one worker, as its tests share servers. Each of the processes that tests start would compile all modules again if
# the caller's environment forbade to keep them.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 4 --dist loadfile

test-fast: setup check
	$(PYTEST) -m "(pure or kernel) and not slow"

# Two at once, as most of it takes one processor.
test:
	$(MAKE) --no-print-directory --jobs=2 setup programs check image
	$(PYTEST)

e2e: setup kube istio image
	$(BIN)/python -m pytest tests/e2e --log-cli-level=INFO --log-cli-format="%(asctime)s %(message)s"

demo: setup
	@$(BIN)/python -m tests.demo

bench: setup
	@$(BIN)/python -m tests.bench

race: setup kube istio
	@$(BIN)/python -m tests.race

scale: setup kube
	@$(BIN)/python -m tests.scale

soak: setup
	@$(BIN)/python -m tests.soak

fuzz: setup
	@$(BIN)/python -m tests.fuzz.accelerator
	@$(BIN)/python -m tests.fuzz --seconds 600
	@$(BIN)/python -m pytest -q --hypothesis-profile search --timeout 0 tests/cniconfig tests/manifest/test_overlay.py tests/redirect/test_rulecount.py

# Writes files of the chart and tables of the docs from the declarations in installer/config.
generate: $(VENV)/.installed
	@$(BIN)/python -m tests.generate

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --quiet --clean
	@echo "docs: build/site/index.html"

release: setup kube image
	@$(BIN)/python -m tests.release.build

lock: export CUSTOM_COMPILE_COMMAND = make lock
lock: $(VENV)/.installed
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra test --output-file tests/requirements.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file installer/requirements.txt pyproject.toml

clean:
	rm -rf build $(VENV)
