"""Which processes belong together: read from what a launcher left in the environment.

Every function here is pure: it sees a mapping of environment variables and nothing else. The launchers, in
the order in which they are asked, innermost first (an `mpirun` inside a Slurm allocation leaves both kinds of
variables):

1. `MJX_COORDINATOR`, `MJX_NUM_PROCESSES`, `MJX_PROCESS_ID`: said outright. All three settle it; fewer
   override what the launcher says.
2. torchrun (and Kubeflow's PyTorchJob): `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`.
3. Open MPI 4 and 5, and jsrun: `OMPI_COMM_WORLD_*`.
4. MPICH and Intel MPI (Hydra): `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID`.
5. A Slurm step, that is `srun`; a bare batch script is one process.

The first complete description wins; one that is begun and not complete is an error only where none is
complete.
"""

import dataclasses
import re
import zlib
from collections.abc import Callable, Mapping

from mjx.errors import InputError
from mjx.launch.hostlist import expand_counts, expand_hosts
from mjx.words import all_of

Environment = Mapping[str, str]

FIRST_PORT, NUM_PORTS = 61440, 4096
"""The coordinator's ports: above Linux's ephemeral range (32768 to 60999), so that no client socket sits on
one."""

_EXPLICIT = ("MJX_COORDINATOR", "MJX_NUM_PROCESSES", "MJX_PROCESS_ID")
_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OPEN_MPI = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
_HYDRA = ("PMI_RANK", "PMI_SIZE")
_SLURM_STEP = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
_RANK_ONLY = ("PMIX_RANK", "JOB_COMPLETION_INDEX")
"""Ranks without a size (PMIx, a Kubernetes indexed Job): they complete MJX_COORDINATOR and
MJX_NUM_PROCESSES."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes that run together, and this one's place among them."""

    launcher: str = "none"
    """What described it: none, mjx, torchrun, openmpi, pmi or slurm."""
    num_processes: int = 1
    process_id: int = 0
    coordinator: str | None = None
    """`host:port` of process 0. None for one process, and where only the process manager can pass it on
    (`pmi`)."""
    local_process_id: int | None = None
    """This process's number on its host; None where the launcher does not say."""
    local_num_processes: int | None = None
    gpus_on_host: int | None = None
    """How many GPUs of this host the launcher gave to all processes together, where it says (Slurm)."""

    def __post_init__(self) -> None:
        if self.num_processes < 1 or not 0 <= self.process_id < self.num_processes:
            raise InputError(
                f"process_id = {self.process_id} and num_processes = {self.num_processes} ({self.launcher}) "
                "do not fit: the process id must lie in 0 ... num_processes - 1."
            )
        if self.coordinator is not None:
            split_address(self.coordinator)


def detect(environment: Environment) -> Cluster:
    """The cluster that these variables describe; one process alone where they describe none.

    Raises `InputError` for a description that lacks a variable, has one that is no number, or contradicts
    another.
    """
    explicit = {name: environment[name] for name in _EXPLICIT if environment.get(name)}
    if len(explicit) == len(_EXPLICIT):
        return _explicit(environment)
    found = _found(environment)
    if not explicit:
        if not found:
            _refuse_partial(environment)
        return found[0] if found else Cluster()
    if "MJX_NUM_PROCESSES" in explicit and not found and _rank_only(environment) is not None:
        return _explicit(environment)
    if not found:
        missing = [name for name in _EXPLICIT if name not in explicit]
        if explicit.keys() == {"MJX_NUM_PROCESSES"} and explicit["MJX_NUM_PROCESSES"] == "1":
            return Cluster()
        raise InputError(
            f"{all_of(explicit)} {'is' if len(explicit) == 1 else 'are'} set without {all_of(missing)}, and "
            "no launcher (srun, mpirun, torchrun) says the rest; set all three or none."
        )
    return _override(found[0], environment)


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as (host, port). Raises `InputError` for anything else."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[\]:]+)):(\d{1,5})", address)
    if match is None or not 0 < int(match[3]) < 65536:
        raise InputError(
            f"coordinator = {address!r} is not an address; write host:port, such as 10.0.0.1:61440."
        )
    return match[1] or match[2], int(match[3])


def port_for(identity: str, offset: int = 0) -> int:
    """A port that every process computes alike from the job's identity; successive offsets never meet."""
    return FIRST_PORT + (zlib.crc32(identity.encode()) + offset) % NUM_PORTS


def _found(environment: Environment) -> list[Cluster]:
    launchers: tuple[Callable[[Environment], Cluster | None], ...] = (_torchrun, _open_mpi, _hydra, _slurm)
    found = [cluster for launcher in launchers if (cluster := launcher(environment)) is not None]
    if len(found) > 1 and found[0].launcher == "torchrun" and "TORCHELASTIC_RUN_ID" not in environment:
        # RANK and WORLD_SIZE were set by hand: a batch script that exports them once gives every task the
        # same rank.
        hand, other = found[0], found[1]
        if (hand.process_id, hand.num_processes) != (other.process_id, other.num_processes):
            raise InputError(
                f"RANK = {hand.process_id} and WORLD_SIZE = {hand.num_processes} contradict "
                f"{other.launcher}, which says process {other.process_id} of {other.num_processes}; unset "
                "RANK and WORLD_SIZE."
            )
    return found


def _explicit(environment: Environment) -> Cluster:
    number = (
        _number(environment, "MJX_PROCESS_ID") if "MJX_PROCESS_ID" in environment else _rank_only(environment)
    )
    count = _number(environment, "MJX_NUM_PROCESSES")
    coordinator = environment.get("MJX_COORDINATOR")
    if count > 1 and not coordinator:
        raise InputError(
            f"MJX_NUM_PROCESSES = {count} is set without MJX_COORDINATOR; set it to process 0's host:port."
        )
    return Cluster(
        launcher="mjx",
        num_processes=count,
        process_id=number or 0,
        coordinator=coordinator if count > 1 else None,
        local_process_id=_optional(environment, "MJX_LOCAL_PROCESS_ID"),
        local_num_processes=_optional(environment, "MJX_LOCAL_NUM_PROCESSES"),
    )


def _override(cluster: Cluster, environment: Environment) -> Cluster:
    for variable, said in (
        ("MJX_NUM_PROCESSES", cluster.num_processes),
        ("MJX_PROCESS_ID", cluster.process_id),
    ):
        if environment.get(variable) and _number(environment, variable) != said:
            raise InputError(
                f"{variable} = {environment[variable]} contradicts {cluster.launcher}, which says {said}; "
                f"unset {variable}, or set all of {all_of(_EXPLICIT)}."
            )
    coordinator = environment.get("MJX_COORDINATOR")
    if coordinator and cluster.num_processes > 1:
        return dataclasses.replace(cluster, coordinator=coordinator)
    return cluster


def _torchrun(environment: Environment) -> Cluster | None:
    if environment.get("WORLD_SIZE") == "1" and environment.get("RANK", "0") == "0":
        return Cluster(launcher="torchrun") if "RANK" in environment else None
    if not all(environment.get(name) for name in _TORCHRUN):
        return None
    host, port = environment["MASTER_ADDR"], _number(environment, "MASTER_PORT")
    if environment.get("TORCHELASTIC_USE_AGENT_STORE", "").lower() == "true":
        # torchrun's own store listens on MASTER_PORT.
        run = f"{environment.get('TORCHELASTIC_RUN_ID')} {port}"
        port = port_for(run, int(environment.get("TORCHELASTIC_RESTART_COUNT") or 0))
    return Cluster(
        launcher="torchrun",
        num_processes=_number(environment, "WORLD_SIZE"),
        process_id=_number(environment, "RANK"),
        coordinator=_address(host, _port(environment, port)),
        local_process_id=_optional(environment, "LOCAL_RANK"),
        local_num_processes=_optional(environment, "LOCAL_WORLD_SIZE"),
    )


def _open_mpi(environment: Environment) -> Cluster | None:
    if not all(environment.get(name) for name in _OPEN_MPI):
        return None
    count = _number(environment, "OMPI_COMM_WORLD_SIZE")
    local = _optional(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")
    return Cluster(
        launcher="openmpi",
        num_processes=count,
        process_id=_number(environment, "OMPI_COMM_WORLD_RANK"),
        coordinator=_open_mpi_coordinator(environment, count, local) if count > 1 else None,
        local_process_id=_optional(environment, "OMPI_COMM_WORLD_LOCAL_RANK"),
        local_num_processes=local,
        gpus_on_host=_optional(environment, "SLURM_GPUS_ON_NODE"),
    )


def _open_mpi_coordinator(environment: Environment, count: int, local: int | None) -> str:
    if environment.get("MJX_COORDINATOR"):
        return environment["MJX_COORDINATOR"]
    # Open MPI 4 passes mpirun's own address on; 5 does not.
    uri = environment.get("OMPI_MCA_orte_hnp_uri", "")
    job = uri.partition(".")[0] or environment.get("PMIX_NAMESPACE", "")
    port = _port(environment, port_for(job))
    if local == count:
        return _address("127.0.0.1", port)
    if match := re.search(r"tcp://([^,:]+)|tcp6://\[([^,\]]+)", uri):
        return _address(match[1] or match[2], port)
    if environment.get("SLURM_JOB_NODELIST"):
        return _address(expand_hosts(environment["SLURM_JOB_NODELIST"])[0], port)
    raise InputError(
        f"Open MPI started {count} processes on several hosts and does not say where process 0 is; add "
        "-x MJX_COORDINATOR=HOST:PORT to the mpirun command, with the first host and a free port."
    )


def _hydra(environment: Environment) -> Cluster | None:
    # srun --mpi=pmi2 sets PMI_RANK and PMI_SIZE too, but not Hydra's local rank: there Slurm knows more.
    if not all(environment.get(name) for name in _HYDRA):
        return None
    if "MPI_LOCALRANKID" not in environment and _slurm(environment) is not None:
        return None
    count = _number(environment, "PMI_SIZE")
    if count > 1 and "PMI_FD" not in environment and not environment.get("MJX_COORDINATOR"):
        raise InputError(
            f"PMI_SIZE = {count} is set without PMI_FD, so that process 0's address cannot be passed on; set "
            "MJX_COORDINATOR=HOST:PORT with the first host and a free port."
        )
    return Cluster(
        launcher="pmi",
        num_processes=count,
        process_id=_number(environment, "PMI_RANK"),
        coordinator=environment.get("MJX_COORDINATOR") if count > 1 else None,
        local_process_id=_optional(environment, "MPI_LOCALRANKID"),
        local_num_processes=_optional(environment, "MPI_LOCALNRANKS"),
        gpus_on_host=_optional(environment, "SLURM_GPUS_ON_NODE"),
    )


def _slurm(environment: Environment) -> Cluster | None:
    if not all(environment.get(name) for name in _SLURM_STEP) or not _is_slurm_step(environment):
        return None
    count = _number(environment, "SLURM_STEP_NUM_TASKS")
    counts = environment.get("SLURM_STEP_TASKS_PER_NODE")
    node = _optional(environment, "SLURM_NODEID")
    local_counts = expand_counts(counts) if counts else ()
    first = expand_hosts(environment["SLURM_STEP_NODELIST"])[0]
    # The step's number is the offset: two steps of one job never share a port.
    port = port_for(f"slurm {environment['SLURM_JOB_ID']}", _number(environment, "SLURM_STEP_ID"))
    return Cluster(
        launcher="slurm",
        num_processes=count,
        process_id=_number(environment, "SLURM_PROCID") if count > 1 else 0,
        coordinator=_address(first, _port(environment, port)) if count > 1 else None,
        local_process_id=_optional(environment, "SLURM_LOCALID"),
        local_num_processes=local_counts[node] if node is not None and node < len(local_counts) else None,
        gpus_on_host=_optional(environment, "SLURM_GPUS_ON_NODE"),
    )


def _is_slurm_step(environment: Environment) -> bool:
    """False for the variables of another step that a batch script has inherited (sbatch called inside
    srun)."""
    step_tasks = environment["SLURM_STEP_NUM_TASKS"]
    if step_tasks != "1" and environment.get("SLURM_NTASKS", step_tasks) != step_tasks:
        return False
    job = environment.get("SLURM_JOB_NODELIST")
    return job is None or set(expand_hosts(environment["SLURM_STEP_NODELIST"])) <= set(expand_hosts(job))


def _refuse_partial(environment: Environment) -> None:
    # MASTER_ADDR and MASTER_PORT alone are often exported and start nothing; a Slurm batch script has most of
    # a step.
    for launcher, needed, telling in (
        ("torchrun", _TORCHRUN, ("RANK", "WORLD_SIZE")),
        ("Open MPI", _OPEN_MPI, _OPEN_MPI),
        ("MPICH", _HYDRA, _HYDRA),
    ):
        if any(environment.get(name) for name in telling):
            if environment.get("WORLD_SIZE") == "1" and launcher == "torchrun":
                continue
            have = [name for name in needed if environment.get(name)]
            missing = [name for name in needed if not environment.get(name)]
            raise InputError(
                f"{all_of(have)} {'is' if len(have) == 1 else 'are'} set without {all_of(missing)}: this is "
                f"not a complete {launcher} environment. Set what is missing, or unset {all_of(have)} to run "
                "one process."
            )


def _rank_only(environment: Environment) -> int | None:
    return next((_number(environment, name) for name in _RANK_ONLY if environment.get(name)), None)


def _port(environment: Environment, derived: int) -> int:
    return (
        _number(environment, "MJX_COORDINATOR_PORT") if environment.get("MJX_COORDINATOR_PORT") else derived
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _number(environment: Environment, name: str) -> int:
    value = environment[name]
    if not value.strip().isdecimal():
        raise InputError(f"{name} = {value!r} in the environment is not a number; it must be 0 or more.")
    return int(value)


def _optional(environment: Environment, name: str) -> int | None:
    return _number(environment, name) if environment.get(name) else None
