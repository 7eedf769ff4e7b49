"""Start-up: settings of JAX, the cluster, the devices; once per process, before anything touches a device."""

import dataclasses
import hashlib
import json
import os
import platform
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from mjx.errors import InputError
from mjx.files import LocalPath, local_path
from mjx.launch import connect, coordination
from mjx.launch.barrier import barrier
from mjx.launch.cluster import Cluster, detect, split_address
from mjx.launch.gpus import local_gpus, visible_gpus
from mjx.launch.host_memory import keep_freed_memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How the processes start. The defaults suit a laptop, one GPU, `srun`, `mpirun`, `torchrun` and `mjx
    launch`."""

    platform: Literal["cpu", "cuda"] | None = None
    """Where to compute. None: CUDA where JAX finds a GPU, else the CPU."""
    cpu_devices: int | None = None
    """Simulated CPU devices per process, to try a mesh without GPUs. None: one. Needs `platform: cpu`, or no
    GPU."""
    coordinator: str | None = None
    """`host:port` of process 0. None: from `MJX_COORDINATOR` or the launcher."""
    num_processes: int | None = None
    """How many processes run together. None: from `MJX_NUM_PROCESSES` or the launcher."""
    process_id: int | None = None
    """Which of them this one is. None, as it should be in a file: from `MJX_PROCESS_ID` or the launcher."""
    local_device_ids: tuple[int, ...] | None = None
    """Which of the visible GPUs this process takes. None: its share of those of the host, one per process as
    a rule."""
    heartbeat_seconds: int = 10
    """How long a process may be silent before all others end. A stopped or unreachable process counts as
    dead."""
    initialization_seconds: int = 300
    """How long to wait at the start until all processes have arrived."""
    shutdown_seconds: int = 1800
    """How long a finished process waits at the end for the others, which may still be writing."""
    compilation_cache: LocalPath = "auto"
    """Where compiled programs are kept between runs: a folder, `off`, or `auto`: `~/.cache/mjx/xla`, in it a
    folder for each kind of CPU. With several hosts name a shared folder: only process 0 writes.
    `JAX_COMPILATION_CACHE_DIR` goes before `auto`."""
    debug_nans: bool = False
    """Raise at the operation that first made a NaN. Slow: every result is checked."""
    log_compiles: bool = False
    """Log each compilation, to find what recompiles."""
    deterministic: bool = False
    """Only GPU algorithms that give the same bits in each run; some are slower."""
    gpu_memory_fraction: float | None = None
    """The part of each GPU's memory that is taken at the start. None: JAX's default, 0.75, or
    `XLA_PYTHON_CLIENT_MEM_FRACTION`."""
    xla_flags: tuple[str, ...] = ()
    """Further XLA flags, such as `--xla_gpu_enable_latency_hiding_scheduler=true`, added to `XLA_FLAGS`."""

    def __post_init__(self) -> None:
        for name in ("cpu_devices", "num_processes", "initialization_seconds", "shutdown_seconds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} = {value} must be at least 1.")
        if self.heartbeat_seconds < 3:
            raise InputError(
                f"heartbeat_seconds = {self.heartbeat_seconds} must be at least 3: a busy host is silent for "
                "a moment."
            )
        if self.process_id is not None and self.process_id < 0:
            raise InputError(f"process_id = {self.process_id} must be 0 or more.")
        if self.coordinator is not None:
            split_address(self.coordinator)
        if self.cpu_devices is not None and self.platform == "cuda":
            raise InputError(
                f"cpu_devices = {self.cpu_devices} needs platform = cpu; platform is {self.platform!r}."
            )
        if self.gpu_memory_fraction is not None and not 0 < self.gpu_memory_fraction <= 1:
            raise InputError(f"gpu_memory_fraction = {self.gpu_memory_fraction} must lie in (0, 1].")
        for flag in self.xla_flags:
            if not flag.startswith("--xla"):
                raise InputError(f"xla_flags has {flag!r}, which is not an XLA flag; these begin with --xla.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes of this run as they have come up, and this one's place among them."""

    process_id: int
    num_processes: int
    launcher: str
    """What described the cluster: none, mjx, torchrun, openmpi, pmi or slurm."""
    host: str
    platform: str
    """cpu or gpu, as JAX calls it."""
    device_kind: str
    """Such as `NVIDIA H100 80GB HBM3`."""
    local_device_ids: tuple[int, ...]
    """JAX's global ids of this process's devices; neither dense nor in order over processes."""
    device_count: int
    """Devices of all processes together."""

    @property
    def is_first(self) -> bool:
        """True in the one process that prints and writes what is written once."""
        return self.process_id == 0


_started: tuple[RuntimeConfig, Processes] | None = None


def start(config: RuntimeConfig) -> Processes:
    """Apply the settings, find the other processes, bring up the devices; process 0 prints a line per
    process.

    A second call with the same config returns the first call's result. Raises `InputError` for a cluster that
    is described wrongly or devices that cannot be had, and `RuntimeError` where a device has been touched
    before.
    """
    global _started
    if _started is not None:
        if _started[0] == config:
            return _started[1]
        raise RuntimeError(
            f"mjx.launch.start was called with {_started[0]} before; it cannot change to {config}."
        )
    cluster = find_cluster(config, os.environ)
    if coordination.backends_started():
        _require_same(config, cluster)
    else:
        _apply(config)
        if cluster.num_processes > 1:
            _connect(config, cluster)
        elif config.local_device_ids is not None:
            _show_gpus(config.local_device_ids)
    processes = _devices(config, cluster)
    _report(config, processes, _gathered(config, processes))
    _started = (config, processes)
    return processes


def find_cluster(config: RuntimeConfig, environment: Mapping[str, str]) -> Cluster:
    """The cluster that `environment` describes, where the config's own words go before `MJX_*`."""
    said = {
        "MJX_COORDINATOR": config.coordinator,
        "MJX_NUM_PROCESSES": config.num_processes,
        "MJX_PROCESS_ID": config.process_id,
    }
    words = {name: str(value) for name, value in said.items() if value is not None}
    return detect({**environment, **words})


def _apply(config: RuntimeConfig) -> None:
    import jax

    if config.platform is not None:
        # The CPU stays at hand beside CUDA, for what is computed on the host.
        jax.config.update("jax_platforms", "cuda,cpu" if config.platform == "cuda" else "cpu")
    if config.cpu_devices is not None:
        jax.config.update("jax_num_cpu_devices", config.cpu_devices)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_debug_nans", config.debug_nans)
    jax.config.update("jax_log_compiles", config.log_compiles)
    apply_xla_flags(config)
    if not _expects_gpu(config):
        keep_freed_memory()
        _compile_for_a_cpu()
    if config.gpu_memory_fraction is not None:
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(config.gpu_memory_fraction)
    _keep_programs(config)


def apply_xla_flags(config: RuntimeConfig) -> None:
    """Add the config's to `XLA_FLAGS`, before XLA first reads them."""
    flags = list(config.xla_flags)
    if config.deterministic:
        flags.append("--xla_gpu_deterministic_ops=true")
    _add_xla_flags(flags)


def _compile_for_a_cpu() -> None:
    """Compile with LLVM's usual optimizations, not with the costlier ones that XLA asks for: the same bits as
    fast, in 0.7 of the time (docs/performance.md)."""
    if "--xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
        _add_xla_flags(["--xla_backend_optimization_level=2"])


def _add_xla_flags(flags: Sequence[str]) -> None:
    if flags:
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()


def _keep_programs(config: RuntimeConfig) -> None:
    import jax

    if config.compilation_cache == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    automatic = config.compilation_cache == "auto"
    if not (automatic and os.environ.get("JAX_COMPILATION_CACHE_DIR")):
        try:
            folder = _automatic_folder(config) if automatic else Path(local_path(config.compilation_cache))
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:
            if automatic:  # no home (RuntimeError), or one that is only read: nothing that a run needs
                return
            said = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"runtime.compilation_cache = {config.compilation_cache}: {said}; name a folder that can be "
                "written, or off."
            ) from error
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _automatic_folder(config: RuntimeConfig) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mjx" / "xla"
    return folder if _expects_gpu(config) else folder / _cpu_kind()


def _cpu_kind() -> str:
    """A name of all hosts that run each other's programs: those whose CPU has the same features."""
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        said = ""
    features = re.search(r"^(?:flags|Features)\s*:(.*)$", said, re.MULTILINE)
    words = features[1] if features else platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def _expects_gpu(config: RuntimeConfig) -> bool:
    if config.platform is not None:
        return config.platform == "cuda"
    return not os.environ.get("JAX_PLATFORMS", "").startswith("cpu") and visible_gpus(os.environ) > 0


def _connect(config: RuntimeConfig, cluster: Cluster) -> None:
    chosen = config.local_device_ids
    if chosen is None and _expects_gpu(config) and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        chosen = local_gpus(cluster, visible_gpus(os.environ))
    connect.connect(
        cluster,
        local_device_ids=chosen,
        heartbeat_seconds=config.heartbeat_seconds,
        initialization_seconds=config.initialization_seconds,
        shutdown_seconds=config.shutdown_seconds,
    )


def _show_gpus(ids: tuple[int, ...]) -> None:
    import jax

    jax.config.update("jax_cuda_visible_devices", ",".join(str(number) for number in ids))


def _require_same(config: RuntimeConfig, cluster: Cluster) -> None:
    """A device was touched before: fine for one process that has what it asks for, too late for everything
    else."""
    import jax

    late = "mjx.launch.start must be called before any array, device or random key of JAX is made: "
    if cluster.num_processes > 1:
        raise RuntimeError(
            f"{late}the {cluster.num_processes} processes of this run can no longer be brought together."
        )
    platform = {"cuda": "gpu"}.get(config.platform or "", config.platform)
    if platform is not None and platform != jax.default_backend():
        raise RuntimeError(
            f"{late}JAX already runs on {jax.default_backend()}, and platform = {config.platform!r}."
        )
    if config.cpu_devices is not None and config.cpu_devices != jax.local_device_count():
        raise RuntimeError(
            f"{late}JAX already has {jax.local_device_count()} devices, and cpu_devices = "
            f"{config.cpu_devices}."
        )


def _devices(config: RuntimeConfig, cluster: Cluster) -> Processes:
    import jax

    try:
        local = jax.local_devices()
    except RuntimeError as error:
        if config.platform != "cuda":
            raise
        raise _no_gpu(str(error)) from error
    # Without its CUDA package JAX takes the CPU and says nothing.
    if config.platform == "cuda" and jax.default_backend() != "gpu":
        raise _no_gpu("its CUDA package is missing")
    processes = Processes(
        process_id=jax.process_index(),
        num_processes=jax.process_count(),
        launcher=cluster.launcher,
        host=socket.gethostname(),
        platform=jax.default_backend(),
        device_kind=local[0].device_kind,
        local_device_ids=tuple(device.id for device in local),
        device_count=jax.device_count(),
    )
    if (processes.process_id, processes.num_processes) != (cluster.process_id, cluster.num_processes):
        raise RuntimeError(
            f"{cluster.launcher} describes process {cluster.process_id} of {cluster.num_processes}, but JAX "
            f"came up as process {processes.process_id} of {processes.num_processes}."
        )
    if config.cpu_devices is not None and processes.platform == "cpu" and len(local) != config.cpu_devices:
        raise RuntimeError(f"cpu_devices = {config.cpu_devices}, but JAX came up with {len(local)} devices.")
    if config.cpu_devices is not None and processes.platform != "cpu":
        raise InputError(
            f"cpu_devices = {config.cpu_devices}, but this host has GPUs and JAX chose them; set platform = "
            "cpu."
        )
    return processes


def _no_gpu(reason: str) -> InputError:
    return InputError(
        f"runtime.platform = 'cuda' and JAX finds no usable GPU on {socket.gethostname()} ({reason}). "
        "Install mjx[cuda13] or mjx[cuda12] as the driver allows, or set platform = cpu."
    )


def _gathered(config: RuntimeConfig, processes: Processes) -> list[Processes]:
    """Every process's account of itself, in process 0; elsewhere this process's alone."""
    shared = coordination.client()
    if processes.num_processes == 1 or shared is None:
        return [processes]
    shared.key_value_set(f"mjx/processes/{processes.process_id}", json.dumps(dataclasses.asdict(processes)))
    barrier("mjx/processes", config.initialization_seconds)
    if not processes.is_first:
        return [processes]
    everyone = [Processes(**json.loads(value)) for _, value in shared.key_value_dir_get("mjx/processes/")]
    everyone.sort(key=lambda process: process.process_id)
    platforms = sorted({process.platform for process in everyone})
    if len(platforms) > 1:
        odd = ", ".join(f"process {p.process_id} on {p.host}: {p.platform}" for p in everyone)
        raise InputError(f"All processes must compute on one platform, and these came up on several: {odd}.")
    return everyone


def _report(config: RuntimeConfig, processes: Processes, everyone: list[Processes]) -> None:
    if not processes.is_first:
        return
    lines = []
    for one in everyone:
        ids = ",".join(str(number) for number in one.local_device_ids)
        count = len(one.local_device_ids)
        among = f" of {one.num_processes} ({one.launcher})" if one.num_processes > 1 else ""
        lines.append(
            f"process {one.process_id}{among} on {one.host}: "
            f"{count} {one.device_kind} device{'s' if count > 1 else ''} (id {ids})"
        )
    if (
        processes.platform == "gpu"
        and any(len(one.local_device_ids) > 1 for one in everyone)
        and len(everyone) > 1
    ):
        lines.append(
            "warning: several GPUs in one process can hang in NCCL at scale; start one process per GPU "
            "(srun --ntasks-per-node=GPUS)."
        )
    if processes.platform == "cpu" and _expects_gpu(config):
        lines.append(
            f"warning: {visible_gpus(os.environ)} GPUs are visible, but JAX has no CUDA here and computes on "
            "the CPU; install mjx[cuda13], or set platform = cpu."
        )
    print("\n".join(lines), file=sys.stderr, flush=True)
