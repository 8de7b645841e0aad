# make test | test-ray | soak-cache | check | bench ARGS="--seconds 10" | bench-gpu | peers | sim ARGS="--capacity" | wheels | format | clean      PYTHON=python3.12 and CXX=clang++ choose others
# Needs Python >= 3.11 with venv and headers, g++, make and git; all else comes from PyPI into $(VENV).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test

PYTHON ?= python3
ifeq ($(origin CXX),default)
CXX := g++
endif
export CXX
VENV ?= .venv
PEERS_VENV ?= .venv-peers
RAY_VENV ?= .venv-ray
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
say := @printf '== %s\n'
python_version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

venv_ready := $(VENV)/.ready-$(python_version)
native_sources := pyproject.toml CMakeLists.txt $(shell find csrc python \( -name '*.hpp' -o -name '*.cpp' -o -name '*.def' -o -name '*.pyx' -o -name '*.pxd' \) 2>/dev/null)
package_files := $(shell find python kernels bench/suites -type f -not -path '*/__pycache__/*' 2>/dev/null | sort | cksum | cut -d' ' -f1)
# With CI set, as a run of tests wants it: Cython's code with less of the optimiser. Not what `make bench` is to measure.
quick := $(if $(CI),ON,OFF)
built := $(VENV)/.built-$(package_files)-quick-$(quick)
# One more than there are cores: some tests wait for a clock, and then a core would have nothing to do.
n_workers := $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1)))
cpp_files = $(shell find csrc tests bench kernels \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cuh' \) 2>/dev/null)
python_files := python kernels bench tests .ci

.PHONY: test test-ray soak-cache check bench bench-gpu peers sim wheels format build types tests machine-packages clean

test: build types tests

# What tests need beyond the build, some gigabytes, is unpacked while the compiler runs.
build: $(VENV)/.build-ready
	@$(MAKE) -s $(VENV)/.tests-ready & packages=$$!; \
	  $(MAKE) -s $(built) || failed=1; wait $$packages; [ -z "$${failed:-}" ]

types:
	$(say) "types: mypy --strict"
	@$(BIN)/python -m mypy

tests:
	$(say) "tests: tidy, unit, property, differential, golden, gpu, bench smoke"
	@$(BIN)/python -m pytest tests bench/micro --benchmark-disable --numprocesses $(n_workers) --dist loadfile $(PYTEST_ARGS)

# In an environment of its own, as the peers, that sees the one of the build behind it.
test-ray: build $(RAY_VENV)/.ready
	$(say) "infcore.integrations.ray in Ray Serve"
	@$(RAY_VENV)/bin/python -m pytest -W ignore tests/integrations/ray_serve.py $(PYTEST_ARGS)

bench: $(VENV)/.bench-ready $(built)
	$(say) "infcore bench $(ARGS)"
	@$(BIN)/infcore bench $(ARGS)

bench-gpu: $(VENV)/.tests-ready $(built)
	$(say) "GPU kernels: answers, bandwidth, overhead $(ARGS)"
	@$(BIN)/python bench/gpu/run.py $(ARGS)

# What infcore is measured against, in an environment of its own: then `python bench/peers/routers.py`, `.../caches.py`, `.../batchers.py`, `.../radix.py`, `.../mocker.py`.
peers: build $(PEERS_VENV)/.ready

# Ten minutes of threads and event loops on one cache, every policy in turn; or so many seconds as ARGS says.
soak-cache: build
	$(say) "infcore.Cache: soak"
	@PYTHONPATH=tests $(BIN)/python tests/concurrency/test_cache_stress.py $(or $(ARGS),600)

sim: $(VENV)/.tests-ready $(built)
	$(say) "scenarios x policies $(ARGS)"
	@$(BIN)/python bench/replay/scenarios.py $(ARGS)

check: build machine-packages
	$(say) "format: clang-format, ruff format"
	@bad=$$($(BIN)/clang-format --dry-run -Werror $(cpp_files) 2>&1) || { printf 'make: not as clang-format writes it; run `make format`:\n'; \
	  sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: error.*/   \1/p' <<<"$$bad" | sort -u; exit 1; } >&2
	@$(BIN)/ruff format --check $(python_files) >&2
	$(say) "lint: ruff check"
	@$(BIN)/ruff check --quiet $(python_files)
	@$(BIN)/python .ci/check.py

format: $(VENV)/.tests-ready
	@$(if $(cpp_files),$(BIN)/clang-format -i $(cpp_files))
	@$(BIN)/ruff format --quiet $(python_files)
	@$(BIN)/ruff check --fix --quiet $(python_files)

wheels: $(VENV)/.wheels-ready
	$(say) "wheels"
	@$(BIN)/python .ci/wheels.py

machine-packages:
	$(say) "Debian packages: model checker, GoogleTest, a peer queue, clang"
	@.ci/debian

clean:
	rm -rf build dist wheelhouse $(VENV) $(PEERS_VENV) $(RAY_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(venv_ready):
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found: install Python >= 3.11 (Debian: python3 python3-venv python3-dev)" >&2; exit 1; }
	$(say) "virtual environment $(VENV) (Python $(python_version))"
	@$(PYTHON) .ci/machine.py $(VENV) "$(CXX)"
	@rm -f $(VENV)/.*-ready $(VENV)/.ready-* $(VENV)/.built-*
	@touch $@

$(VENV)/.build-ready: $(venv_ready) pyproject.toml
	$(say) "packages for building"
	@$(BIN)/python .ci/requirements.py build run | $(PIP) install -r /dev/stdin
	@touch $@

$(VENV)/.tests-ready: $(VENV)/.build-ready
	$(say) "packages for tests and bench"
	@$(BIN)/python .ci/requirements.py build run test gpu_test lint bench | $(PIP) install -r /dev/stdin
	@touch $@ $(VENV)/.bench-ready

$(VENV)/.bench-ready: $(VENV)/.build-ready
	$(say) "packages for bench"
	@$(BIN)/python .ci/requirements.py build run bench | $(PIP) install -r /dev/stdin
	@touch $@

$(VENV)/.wheels-ready: $(venv_ready) pyproject.toml
	$(say) "packages for wheels"
	@$(BIN)/python .ci/requirements.py build wheels | $(PIP) install -r /dev/stdin
	@touch $@

$(PEERS_VENV)/.ready: $(wildcard bench/peers/*.txt) bench/peers/install.py bench/peers/vllm_pool.py
	$(say) "peers in $(PEERS_VENV)"
	@$(PYTHON) bench/peers/install.py $(PEERS_VENV)
	@touch $@

$(RAY_VENV)/.ready: pyproject.toml bench/peers/constraints.txt
	$(say) "Ray in $(RAY_VENV)"
	@$(PYTHON) -m venv $(RAY_VENV)
	@$(BIN)/python .ci/requirements.py ray | $(RAY_VENV)/bin/python -m pip -qq --disable-pip-version-check install \
	  -c bench/peers/constraints.txt -r /dev/stdin
	@echo "import site; site.addsitedir('$(abspath $(BIN))/../lib/python$(python_version)/site-packages')" \
	  > $(RAY_VENV)/lib/python$(python_version)/site-packages/infcore_build.pth
	@touch $@

# Editable, so that a change of a .py needs no build. What changes the compiled part, or adds a file, comes here again.
$(built): $(VENV)/.build-ready $(native_sources)
	$(say) "C++ and Cython"
	@$(PIP) install --no-deps --no-build-isolation -e . --config-settings=build-dir=build/editable \
	  --config-settings=cmake.define.INFCORE_WERROR=ON --config-settings=cmake.define.INFCORE_QUICK=$(quick)
	@rm -f $(VENV)/.built-* && touch $@
