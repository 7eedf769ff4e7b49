"""Bring the processes of a cluster together: `jax.distributed.initialize`, with its traps taken out.

- A rendezvous that fails aborts the process inside XLA with a C++ stack; here a sentence says who waited for
  whom.
- gRPC lets a second coordinator share a port that is taken, and the two runs then mix; here a taken port is
  an error.
- gRPC sends the rendezvous through an HTTP proxy and hangs; the coordinator is put on the no-proxy list.
- XLA's preemption service swallows SIGTERM for the life of the process; it is off, `mjx.launch.preemption`
  does its work.
- JAX detects Slurm and Open MPI by itself and picks GPUs by local rank, which is wrong under
  `--gpus-per-task`.
"""

import os
import socket
import threading
from collections.abc import Callable, Sequence

from mjx.errors import InputError
from mjx.launch.cluster import Cluster, split_address
from mjx.launch.coordination import Notices
from mjx.launch.ending import FAILED, follow, leave, say
from mjx.launch.pmi import pass_on_address

_notices: Notices | None = None
_shutdown_seconds = 1800


def notices() -> Notices | None:
    """The notices of this run; None before `connect` and in a process that runs alone."""
    return _notices


def shutdown_seconds() -> int:
    """How long a finished process waits for the others."""
    return _shutdown_seconds


def connect(
    cluster: Cluster,
    *,
    local_device_ids: Sequence[int] | None = None,
    heartbeat_seconds: int = 10,
    initialization_seconds: int = 300,
    shutdown_seconds: int = 1800,
    give_up: Callable[[str], None] | None = None,
) -> Notices:
    """Wait for all processes of `cluster`, then watch over them. Once per process, before a device is
    touched.

    Raises `InputError` where process 0 cannot serve at the coordinator's address. Ends the process (code 1,
    after a sentence on stderr; `give_up` is called with it instead) where they do not meet within
    `initialization_seconds`.
    """
    global _notices, _shutdown_seconds
    import jax

    coordinator = _coordinator(cluster)
    host, port = split_address(coordinator)
    if cluster.process_id == 0:
        _require_own_address(cluster, host)
        _require_free_port(host, port)
    _bypass_proxy(host)
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_check_proxy_envs", False)
    bind = coordinator if host == "127.0.0.1" and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ else None
    limit = threading.Timer(
        initialization_seconds,
        lambda: (give_up or _give_up)(_unmet(cluster, coordinator, initialization_seconds)),
    )
    limit.daemon = True
    limit.start()
    try:
        jax.distributed.initialize(
            coordinator,
            cluster.num_processes,
            cluster.process_id,
            list(local_device_ids) if local_device_ids is not None else None,
            cluster_detection_method="deactivate",
            # The timer above speaks first, and says more.
            initialization_timeout=initialization_seconds + 30,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=shutdown_seconds,
            coordinator_bind_address=bind,
        )
    finally:
        limit.cancel()
    _shutdown_seconds = shutdown_seconds
    watch = _notices = Notices(cluster.process_id, cluster.num_processes)
    watch.listen(lambda notice: follow(watch, notice))
    watch.start()
    return watch


def free_port() -> int:
    """A TCP port of this host that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _coordinator(cluster: Cluster) -> str:
    if cluster.coordinator is not None:
        return cluster.coordinator
    local = cluster.local_num_processes == cluster.num_processes
    own = f"{'127.0.0.1' if local else _outward_address()}:{free_port()}" if cluster.process_id == 0 else ""
    return pass_on_address(cluster, os.environ, own)


def _outward_address() -> str:
    """The address of the interface that leads out; a host's name often means 127.0.1.1 to the host itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route, sends nothing
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


def _require_own_address(cluster: Cluster, host: str) -> None:
    if cluster.launcher not in ("slurm", "openmpi"):
        return  # said by the user, who may mean a forwarded address
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise InputError(
            f"The coordinator's host {host!r}, as {cluster.launcher} names it, has no address here "
            f"({error}); set MJX_COORDINATOR=HOST:PORT with an address of process 0's host that all hosts "
            "can reach."
        ) from None
    for address in addresses:
        family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address, 0))
                return
            except OSError:
                continue
    raise InputError(
        f"Process 0 runs on {socket.gethostname()}, and the coordinator's address {host}, as "
        f"{cluster.launcher} gives it, is another host's; set MJX_COORDINATOR=HOST:PORT with process 0's "
        "host."
    )


def _require_free_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1" if host == "127.0.0.1" else "", port))
            probe.listen()
        except OSError as error:
            raise InputError(
                f"Port {port} of {socket.gethostname()}, where process 0 would serve the others, cannot be "
                f"had ({error.strerror}); set MJX_COORDINATOR_PORT in every process to a free one."
            ) from None


def _bypass_proxy(host: str) -> None:
    if not any(os.environ.get(name) for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY")):
        return
    for name in ("no_grpc_proxy", "no_proxy"):
        listed = os.environ.get(name, "")
        os.environ[name] = f"{listed},{host}" if listed else host


def _give_up(sentence: str) -> None:
    say(sentence)
    leave(None, FAILED)


def _unmet(cluster: Cluster, coordinator: str, seconds: int) -> str:
    who = f"process {cluster.process_id} of {cluster.num_processes} on {socket.gethostname()}"
    if cluster.process_id == 0:
        why = "some of the others did not arrive: look for their errors, and for a firewall before this port"
    else:
        try:
            socket.create_connection(split_address(coordinator), timeout=2).close()
            why = "it answers, so another process has not arrived: look for its error"
        except OSError as error:
            why = f"it does not answer ({error}): look for process 0's error, a wrong address or a firewall"
    place = (
        f"served at {coordinator}" if cluster.process_id == 0 else f"waited for process 0 at {coordinator}"
    )
    return (
        f"mjx: {who} {place} for {seconds} s, but {why}. (The cluster is described by: {cluster.launcher}. "
        "initialization_seconds sets the time.)"
    )
