"""How many GPUs this process may use, without waking CUDA, and which of them are its own."""

import ctypes
import functools
from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec

from mjx.errors import InputError
from mjx.launch.cluster import Cluster
from mjx.words import divisors, one_of


def visible_gpus(environment: Mapping[str, str]) -> int:
    """The number of GPUs that CUDA would show this process: `CUDA_VISIBLE_DEVICES`, else what the driver
    has."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return installed_gpus()
    count = 0
    for entry in listed.split(","):
        # CUDA stops at the first entry that is no device: "0,1,-1,2" shows two. Slurm writes NoDevFiles for
        # none.
        if not entry.strip() or entry.strip() in ("-1", "NoDevFiles"):
            break
        count += 1
    return count


def cuda_plugin_installed() -> bool:
    """Whether JAX has its CUDA plugin, which `mjx[plan]` brings to machines without a GPU too."""
    if find_spec("jax_plugins") is None:
        return False
    return any(find_spec(f"jax_plugins.xla_cuda{version}") is not None for version in (12, 13))


def choose_platform(environment: MutableMapping[str, str]) -> None:
    """Without a GPU, keep JAX from waking a CUDA plugin: it prints a traceback, and uses the CPU anyway."""
    if not environment.get("JAX_PLATFORMS") and cuda_plugin_installed() and installed_gpus() == 0:
        environment["JAX_PLATFORMS"] = "cpu"


@functools.cache
def installed_gpus() -> int:
    """The number of NVIDIA GPUs that the driver shows (NVML); 0 without a driver. Creates no CUDA context."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    count = ctypes.c_uint(0)
    if nvml.nvmlInit_v2() != 0:
        return 0
    try:
        return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
    finally:
        nvml.nvmlShutdown()


def local_gpus(cluster: Cluster, visible: int) -> tuple[int, ...] | None:
    """Which of the visible GPUs this process takes, as CUDA numbers them here; None for all of them.

    A launcher may show a process only its own GPUs (`--gpus-per-task=1` shows one, numbered 0, to each) or
    all of the host's, and then the processes of a host share them out in equal, contiguous parts. Raises
    `InputError` where they cannot be shared out.
    """
    local, count = cluster.local_process_id, cluster.local_num_processes
    if visible == 0 or cluster.num_processes == 1 or local is None:
        return None
    if cluster.gpus_on_host is not None and visible < cluster.gpus_on_host:
        return None
    if count is None:
        # Only the local rank is known: more GPUs than one means that they are shared, one each.
        if visible > 1 and local >= visible:
            raise InputError(
                f"This is process {local} of its host and {visible} GPUs are visible; start at most "
                f"{visible} processes on a host."
            )
        return (local,) if visible > 1 else None
    if count == 1 or (visible == 1 and cluster.launcher != "mjx"):
        # One visible GPU and several processes: the launcher has bound one to each. `mjx launch` never binds.
        return None
    if visible % count:
        raise InputError(
            f"{count} processes on this host cannot share {visible} visible GPUs equally; start "
            f"{one_of(divisors(visible))} on a host, or bind GPUs to processes (srun --gpus-per-task)."
        )
    share = visible // count
    return tuple(range(local * share, (local + 1) * share))
