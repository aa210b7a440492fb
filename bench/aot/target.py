"""The GPUs that kernels are compiled for, as XLA wants them described.

Sizes: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
"""

import contextlib
import dataclasses

from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

# A GpuTargetConfig as text. Without a version of CUB every sort becomes one that can be compiled without a device.
_CONFIG = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {0.shared}
  threads_per_core_limit: 2048
  core_count: {0.multiprocessors}
  fpus_per_core: {0.fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {0.bandwidth}
  l2_cache_size: {0.cache}
  clock_rate_ghz: {0.clock}
  device_memory_size: {0.memory}
  shared_memory_per_block_optin: {1}
  cuda_compute_capability {{ major: {0.major} minor: {0.minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 28 patch: 0 }}
runtime_version {{ major: 13 }}
device_description_str: "{0.device}"
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """One GPU; shared, cache, memory and bandwidth in bytes (a second), shared of a multiprocessor, clock in GHz."""

    device: str
    major: int
    minor: int
    multiprocessors: int
    shared: int
    fpus: int
    bandwidth: int
    cache: int
    clock: float
    memory: int

    @property
    def config(self) -> str:
        """XLA's description of the device; the system takes 1 KB of shared memory from every block."""
        return _CONFIG.format(self, self.shared - 1024)


TARGETS = {
    "sm_80": Target("NVIDIA A100-SXM4-40GB", 8, 0, 108, 167936, 64, 1_555_000_000_000, 41943040, 1.41, 42_000_000_000),
    "sm_90a": Target(
        "NVIDIA H100 80GB HBM3", 9, 0, 132, 233472, 128, 3_352_320_000_000, 52428800, 1.98, 84_942_979_072
    ),
    "sm_100a": Target("NVIDIA B200", 10, 0, 148, 233472, 128, 7_672_000_000_000, 132644864, 1.965, 191_000_000_000),
}


def lowering_for(kind: str) -> contextlib.AbstractContextManager:
    """Within the block Pallas knows which GPU (`Target.device`) it lowers for; from jax 0.11 on it wants to."""
    return use_abstract_mesh(AbstractMesh((), (), abstract_device=AbstractDevice(kind, None, "gpu")))
