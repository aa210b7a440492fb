#!/usr/bin/env bash
# The one entry for a machine with a GPU: kernel tests on the device, compute-sanitizer where there is one, benchmarks.
#
#   scripts/gpu_check.sh                  makes an environment in .venv/gpu first (needs the network)
#   PYTHON=python3 scripts/gpu_check.sh   takes this one: its JAX sees the GPU already, and jsplat is installed in it
#
#   GSPLAT=gsplat-1.5.3.tar.gz scripts/gpu_check.sh   builds this peer's CUDA code and does nothing else; later calls
#                                         compare with it (needs torch and nvcc)
#
# Results go to OUT (out/gpu_check). One call ends within 10 minutes; the exit status is that of the worst step.
# SUITES names suites of bench.run, ARGS goes to pytest.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-out/gpu_check}
TOTAL=585 # seconds for everything
ENVIRONMENT=.venv/gpu

no_gpu() {
  echo "gpu_check: no GPU: $1" >&2
  exit 1
}

# step NAME SECONDS COMMAND...: runs it with its own limit, within what is left of TOTAL, and keeps what it prints.
names=() results=() worst=0
step() {
  local name=$1 limit=$2 left=$((TOTAL - SECONDS)) begin=$SECONDS status
  shift 2
  echo "== $name"
  if ((left < 5)); then
    status=124
  else
    timeout --kill-after=5 "$((limit < left ? limit : left))" "$@" 2>&1 | tee "$OUT/${name// /-}.txt"
    status=${PIPESTATUS[0]}
  fi
  names+=("$name")
  case $status in
  0) results+=("passed in $((SECONDS - begin)) s") ;;
  124 | 137) results+=("stopped by its time limit after $((SECONDS - begin)) s") ;;
  *) results+=("FAILED (exit status $status) in $((SECONDS - begin)) s") ;;
  esac
  if ((status > worst)); then worst=$status; fi
  return "$status"
}

# skip NAME WHY
skip() {
  names+=("$1")
  results+=("not run: $2")
}

summary() {
  for k in "${!names[@]}"; do printf '%-17s %s\n' "${names[k]}" "${results[k]}"; done | tee "$OUT/summary.txt"
  exit "$worst"
}

python=${PYTHON:-$ENVIRONMENT/bin/python}
if [[ -z ${PYTHON:-} ]]; then
  nvidia-smi --list-gpus 2>/dev/null | grep -q . ||
    no_gpu "nvidia-smi lists none (PYTHON=... names a Python whose JAX sees one)"
  mkdir -p "$OUT" || exit 1
  if ! "$python" -c 'import jax_plugins' 2>/dev/null; then
    # The versions of requirements.lock, and JAX's own choice of CUDA libraries: CUDA 13 needs a driver of at least 580.
    step environment 200 make "VENV=$ENVIRONMENT" "$ENVIRONMENT/.ready" || summary
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
    jax=$("$python" -c 'from importlib.metadata import version; print(version("jax"))')
    step cuda 300 "$python" -m pip --disable-pip-version-check --quiet install \
      "jax[cuda$((${driver%%.*} >= 580 ? 13 : 12))]==$jax" || summary
  fi
fi
seen=$("$python" -c 'import jax; print(jax.default_backend())' 2>/dev/null)
[[ $seen == gpu ]] || no_gpu "the JAX of $python runs on: ${seen:-nothing, it does not even start}"
if ! "$python" -c 'import jsplat.kernels' 2>/dev/null; then
  echo "gpu_check: $python lacks jsplat: $python -m pip install --no-deps --no-build-isolation --editable ." >&2
  exit 1
fi
mkdir -p "$OUT" || exit 1
export JAX_PLATFORMS=cuda,cpu # the first is the default
export XLA_PYTHON_CLIENT_PREALLOCATE=false

if [[ -n ${GSPLAT:-} ]]; then
  step gsplat 560 env MAX_JOBS="$(nproc)" "$python" -m pip --disable-pip-version-check --quiet install \
    --no-deps --no-build-isolation "$GSPLAT" &&
    step "gsplat starts" 20 "$python" -c 'import gsplat.cuda._backend as built; assert built._C'
  summary
fi

ABOUT='
import platform, sys
from importlib.metadata import PackageNotFoundError, version
import jax
for device in jax.devices():
    print(device.device_kind, "compute capability", getattr(device, "compute_capability", "unknown"))
print("python", platform.python_version(), sys.executable)
for name in ("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "numpy"):
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
'

# Every implementation that runs natively here, forward and backward, on one small image.
SMALLEST='
import jax, numpy as np
from jsplat.kernels.blend import IMPLEMENTATIONS, blend
from jsplat.kernels.blend.cases import CAPACITY, CASES, CHANNELS, SIZE
from jsplat.kernels.select import Facts

for name, implementation in IMPLEMENTATIONS.items():
    declined = implementation.declines(Facts(jax.devices()[0], np.dtype(np.float32), CHANNELS))
    if declined:
        print(name, "does not run here:", declined)
        continue
    def loss(*args):
        return blend(*args, size=SIZE, capacity=CAPACITY, backend=name).channels.sum()
    jax.block_until_ready(jax.jit(jax.grad(loss, (0, 1, 2, 4)))(*CASES["random"]().arrays()))
    print(name, "ran")
'

# The sorts of the binning are handed to CUB: XLA's own are slow.
SORTS='
import jax
from bench.aot.entries import CAPACITY, SIZE, gaussians
from jsplat.kernels.tiling import bin_tiles

binning = jax.jit(lambda *args: bin_tiles(*args, size=SIZE, tile=(16, 8), capacity=CAPACITY))
text = binning.lower(*gaussians()).compile().as_text()
cub, own = text.count("custom_call_target=\"__cub$"), text.count(" sort(")
print(cub, "sorts by CUB,", own, "by XLA")
raise SystemExit(own > 0 or cub == 0)
'

# A benchmark that crashes is a line with an error; a peer that is not installed is none.
CRASHED='
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
for line in lines:
    if line["error"]:
        print(line["name"], line["error"])
sys.exit(not lines or any(line["error"] for line in lines))
'

nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null
git describe --always --dirty --abbrev=12 '--exclude=*' 2>/dev/null
step about 60 "$python" -c "$ABOUT"

step sorts 60 "$python" -c "$SORTS"

# The smallest kernels first: barriers under divergence and rows that nobody wrote spoil all that follows.
if command -v compute-sanitizer >/dev/null; then
  for check in synccheck initcheck memcheck racecheck; do
    step "$check" 45 env XLA_PYTHON_CLIENT_ALLOCATOR=platform \
      compute-sanitizer --tool "$check" --error-exitcode 9 "$python" -c "$SMALLEST"
  done
else
  skip sanitizer "compute-sanitizer is not on the path"
fi

# The shape checks of the tests on CPUs (pyproject.toml: addopts) are left out: they need a package more.
# shellcheck disable=SC2086  # ARGS is a list of words
step tests 240 env JSPLAT_DEVICE_TESTS=1 "$python" -m pytest tests/kernels -q --strict-markers -p no:cacheprovider \
  --override-ini addopts= ${ARGS:-}

rm -f "$OUT/bench.jsonl"
for suite in ${SUITES:-gpu-own gpu-raster gpu-step gpu-lift}; do
  step "bench $suite" 120 "$python" -m bench.run --device gpu --suite "$suite" --out "$OUT/bench.jsonl"
done
step "bench values" 10 "$python" -c "$CRASHED" "$OUT/bench.jsonl"
step profile 60 "$python" -m bench.profile --count 50000 --edge 512 --out "$OUT/profile.json"
summary
