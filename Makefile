# Every target sets itself up: a virtual environment in .venv with the versions and hashes of requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Python writes the bytecode of what is imported, also where the environment says no; pip would write that of everything.
INSTALL := $(PIP) install --no-compile
export PYTHONDONTWRITEBYTECODE =
KERNELS := $(VENV)/kernels
TORCH := torch==2.13.0+cpu
NATIVE := kernels/blend/cpu/compiled.py $(wildcard kernels/blend/cpu/*.cc kernels/blend/cpu/*.h)
OUT ?= out/demo

.DEFAULT_GOAL := help
.PHONY: help demo test peers check check-kernels bench lock clean

help:
	@echo "make demo    the whole loop on procedural heads; the report lands in $(OUT)"
	@echo "make test    the tests (pass more with ARGS='-k camera')"
	@echo "make check   style and types"
	@echo "make check-kernels  compiles the GPU kernels without a GPU: spills, registers, barriers; runs their PTX in numpy (Linux, x86_64)"
	@echo "make bench   the benchmarks of this machine"
	@echo "make lock    new versions and hashes in requirements*.lock"
	@echo "make clean   removes everything that was built, and out/"

demo: $(READY)
	$(BIN)/jsplat demo $(OUT) --config demo

test:
	@+$(MAKE) --no-print-directory --jobs=2 $(READY) peers
	$(BIN)/python -m pytest -rs --numprocesses $$(nproc) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

check-kernels: $(KERNELS)/.ready
	JAX_PLATFORMS=cpu $(BIN)/python -m bench.sanitize
	JAX_PLATFORMS=cpu PYTHONPATH=$(KERNELS) $(BIN)/python -m bench.aot.check $(ARGS)
	JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 JAX_PLATFORMS=cpu PYTHONPATH=$(KERNELS) $(BIN)/python -m pytest --numprocesses $$(nproc) --dist load tests/kernels/test_ptx.py tests/kernels/test_launches.py

bench: $(READY)
	$(BIN)/python -m bench.run $(ARGS)

# A Debian without python3-venv has no ensurepip: there the system's pip puts one into the environment.
# The warning that is silenced comes with every editable install.
$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "jsplat needs Python 3.11 to 3.13; name one: make PYTHON=python3.11" >&2; exit 1; }
	@if $(PYTHON) -c 'from ensurepip import bootstrap' 2>/dev/null; then $(PYTHON) -m venv $(VENV); else \
	  $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --disable-pip-version-check --quiet --python $(BIN)/python install pip; fi || \
	  { echo "no virtual environment could be made: apt install python3-venv (or python3-pip)" >&2; exit 1; }
	$(INSTALL) --require-hashes --requirement requirements.lock
	@touch $@

$(READY): $(LOCKED) pyproject.toml setup.py $(NATIVE)
	@PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# The compilers for GPUs, in a folder of their own: the environment itself stays one of a machine without a GPU.
$(KERNELS)/.ready: $(READY) requirements-kernels.lock
	rm -rf $(KERNELS)
	$(INSTALL) --no-deps --require-hashes --target $(KERNELS) --requirement requirements-kernels.lock
	@touch $@

# PyTorch's build for processors, with which the peers in bench/ are held to the truth. Registries that have only the
# build for GPUs, of gigabytes, do not match the lock: then these tests are skipped.
peers: $(LOCKED)
	@cmp -s requirements-peers.lock $(VENV)/.peers || \
	  { $(INSTALL) --no-deps --require-hashes --requirement requirements-peers.lock >$(VENV)/peers.log 2>&1 && \
	    cp requirements-peers.lock $(VENV)/.peers; } || \
	  echo "the peers are not tested: pip finds no PyTorch of requirements-peers.lock ($(VENV)/peers.log says why)"

lock: $(READY)
	$(PIP) install uv
	$(BIN)/uv --no-config --quiet pip compile pyproject.toml --extra test --universal --upgrade --python-version 3.11 \
	  --generate-hashes --no-annotate --custom-compile-command "make lock" --output-file requirements.lock
	{ for name in pjrt plugin; do sed -n "s/^jax\(==.*\) .$$/jax-cuda13-$$name\1/p" requirements.lock; done; \
	  printf '%s\n' nvidia-cuda-nvcc nvidia-cuda-nvdisasm nvidia-nvvm; } | \
	  $(BIN)/uv --no-config --quiet pip compile - --no-deps --universal --upgrade --python-version 3.11 \
	  --generate-hashes --no-annotate --custom-compile-command "make lock" --output-file requirements-kernels.lock
	rm -rf $(VENV)/wheels && $(PIP) download --no-deps --dest $(VENV)/wheels '$(TORCH)'
	printf '%s\n' filelock jinja2 markupsafe mpmath networkx sympy | \
	  $(BIN)/uv --no-config --quiet pip compile - --no-deps --universal --upgrade --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --output-file $(VENV)/peers.lock
	{ head -n 2 requirements.lock; echo '$(TORCH) \'; $(PIP) hash $(VENV)/wheels/torch-*.whl | sed -n 's/^--/    --/p'; \
	  cat $(VENV)/peers.lock; } >requirements-peers.lock

clean:
	rm -rf $(VENV) out build dist *.egg-info .ruff_cache .hypothesis kernels/blend/cpu/*.so
	find jsplat kernels tests bench scripts -name __pycache__ -prune -exec rm -rf {} +
