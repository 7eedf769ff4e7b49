"""State-space sub-layers: a short convolution and a recurrence of constant memory in attention's place."""

from mjx.models.common.state_space.initial import TimeStepConfig
from mjx.models.common.state_space.selective_scan_config import SelectiveScanConfig
from mjx.models.common.state_space.ssd_config import SSDConfig

__all__ = ["SSDConfig", "SelectiveScanConfig", "TimeStepConfig"]
