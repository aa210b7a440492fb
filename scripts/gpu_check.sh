#!/usr/bin/env bash
# The one entry for a machine with a GPU: kernels against the reference, times, sanitizers, profiles, tests.
#
#   scripts/gpu_check.sh                  makes an environment in .venv/gpu first (needs the network)
#   PYTHON=python3 scripts/gpu_check.sh   takes this one: its JAX sees the GPU already, and jsplat is installed in it
#   scripts/gpu_check.sh --help           steps, continuing after an earlier call, rehearsing without a GPU
#
#   GSPLAT=gsplat-1.5.3.tar.gz scripts/gpu_check.sh   builds this peer's CUDA code and does nothing else; later calls
#                                         compare with it (needs torch and nvcc)
#
# Results go to OUT (out/gpu_check), each as soon as it is there. A call ends within 585 seconds, whatever hangs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
ENVIRONMENT=.venv/gpu

no_gpu() {
  echo "gpu_check: no GPU: $1" >&2
  exit 1
}

case " $* " in *" --rehearse "*) rehearsal=1 ENVIRONMENT=.venv ;; *) rehearsal= ;; esac
python=${PYTHON:-$ENVIRONMENT/bin/python}
if [[ -z $rehearsal && -z ${PYTHON:-} ]]; then
  nvidia-smi --list-gpus 2>/dev/null | grep -q . ||
    no_gpu "nvidia-smi lists none (PYTHON=... names a Python whose JAX sees one)"
  if ! "$python" -c 'import jax_plugins' 2>/dev/null; then
    # The versions of requirements.lock, and JAX's own choice of CUDA libraries: CUDA 13 needs a driver of at least 580.
    make "VENV=$ENVIRONMENT" "$ENVIRONMENT/.ready" || exit 1
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
    jax=$("$python" -c 'from importlib.metadata import version; print(version("jax"))')
    "$python" -m pip --disable-pip-version-check --quiet install \
      "jax[cuda$((${driver%%.*} >= 580 ? 13 : 12))]==$jax" || exit 1
  fi
fi
if [[ -n ${GSPLAT:-} ]]; then
  MAX_JOBS="$(nproc)" "$python" -m pip --disable-pip-version-check --quiet install \
    --no-deps --no-build-isolation "$GSPLAT" &&
    "$python" -c 'import gsplat.cuda._backend as built; assert built._C'
  exit
fi
if ! "$python" -c 'import jsplat.kernels' 2>/dev/null; then
  echo "gpu_check: $python lacks jsplat: $python -m pip install --no-deps --no-build-isolation --editable ." >&2
  exit 1
fi
exec "$python" -m bench.gpu "$@"
