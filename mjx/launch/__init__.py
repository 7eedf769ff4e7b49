"""Process start-up on a laptop or a cluster, and how a run ends: together, in time, saying why."""

from mjx.launch.barrier import BarrierTimeoutError, barrier
from mjx.launch.cluster import Cluster, detect
from mjx.launch.failure import end_together
from mjx.launch.local import launch_local
from mjx.launch.preemption import Preemption
from mjx.launch.runtime import Processes, RuntimeConfig, start
from mjx.launch.watchdog import Watchdog, WatchdogConfig

__all__ = [
    "BarrierTimeoutError",
    "Cluster",
    "Preemption",
    "Processes",
    "RuntimeConfig",
    "Watchdog",
    "WatchdogConfig",
    "barrier",
    "detect",
    "end_together",
    "launch_local",
    "start",
]
