"""The GPUs that kernels are compiled for, as data, and how many blocks of a kernel fit on one of their multiprocessors.

Sizes: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
"""

import contextlib
import dataclasses

from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

RESERVED_SHARED = 1024  # bytes of shared memory that the system takes from every block
REGISTER_UNIT = 256  # registers are given to a warp in multiples of this
WARP = 32

# What XLA wants to know of a device that is not there (its GpuTargetConfig as text).
_CONFIG = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {target.shared}
  threads_per_core_limit: {target.threads}
  core_count: {target.multiprocessors}
  fpus_per_core: {target.fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {target.bandwidth}
  l2_cache_size: {target.cache}
  clock_rate_ghz: {target.clock}
  device_memory_size: {target.memory}
  shared_memory_per_block_optin: {shared_optin}
  cuda_compute_capability {{ major: {target.major} minor: {target.minor} }}
  registers_per_core_limit: {target.registers}
  registers_per_block_limit: {target.registers}
{cub}}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 28 patch: 0 }}
runtime_version {{ major: 13 }}
device_description_str: "{target.device}"
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """One GPU.

    Attributes:
        device: as XLA's table of CUB scratch sizes spells it.
        shared: bytes of shared memory of a multiprocessor.
        threads, registers, blocks: most of a multiprocessor.
        bandwidth, cache, memory: in bytes (a second); clock in GHz.
    """

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
    threads: int = 2048
    registers: int = 65536
    blocks: int = 32

    def config(self, *, cub: bool) -> str:
        """XLA's description of the device.

        Without CUB every sort becomes a generic one, and all of a program can be compiled. With CUB the sorts that
        qualify are handed to that library, whose scratch size only a real device tells: the compilation stops there.
        """
        version = '  cub_version: "3.1.2"\n' if cub else ""
        return _CONFIG.format(target=self, shared_optin=self.shared - RESERVED_SHARED, cub=version)

    def blocks_by_registers(self, registers: int, threads: int) -> int:
        """Blocks of `threads` threads with `registers` each that a multiprocessor's registers hold."""
        of_warp = -(-registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
        quarter = self.registers // 4 // max(of_warp, 1)  # each of the four schedulers has its own registers
        return min(4 * quarter // -(-threads // WARP), self.blocks)

    def blocks_by_shared(self, shared: int) -> int:
        """Blocks with `shared` bytes each that a multiprocessor's shared memory holds."""
        return min(self.shared // (-(-shared // 128) * 128 + RESERVED_SHARED), self.blocks)


TARGETS = {
    "sm_80": Target("NVIDIA A100-SXM4-40GB", 8, 0, 108, 167936, 64, 1_555_000_000_000, 41943040, 1.41, 42_000_000_000),
    "sm_90a": Target(
        "NVIDIA H100 80GB HBM3", 9, 0, 132, 233472, 128, 3_352_320_000_000, 52428800, 1.98, 84_942_979_072
    ),
    "sm_100a": Target("NVIDIA B200", 10, 0, 148, 233472, 128, 7_672_000_000_000, 132644864, 1.965, 191_000_000_000),
}


def lowering_for(kind: str) -> contextlib.AbstractContextManager:
    """Within the block Pallas knows which GPU it lowers for, though none is there; from jax 0.11 on it wants to.

    Args:
        kind: the device's name, as in `Target.device`.
    """
    return use_abstract_mesh(AbstractMesh((), (), abstract_device=AbstractDevice(kind, None, "gpu")))
