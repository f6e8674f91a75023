"""What machine this is (`probe`) and what to do with it (`plan`): facts on one side, a pure function on the other.

No module of this room imports torch before a function needs it: who starts the processes of a run asks for the plan first.
"""

from __future__ import annotations

from arclight.distributed.environment import Launch, detect_launch
from arclight.hardware.backend import GRAPH_MODES, apply_backend_settings
from arclight.hardware.batch import accumulation
from arclight.hardware.decision import Decision
from arclight.hardware.devices import count_devices
from arclight.hardware.hardware_info import Gpu, HardwareInfo, is_main_process, probe
from arclight.hardware.limits import usable_cores
from arclight.hardware.plan import check_settings, for_trainer, plan, requested_settings

__all__ = [
    "GRAPH_MODES",
    "Decision",
    "Gpu",
    "HardwareInfo",
    "Launch",
    "accumulation",
    "apply_backend_settings",
    "check_settings",
    "count_devices",
    "detect_launch",
    "for_trainer",
    "is_main_process",
    "plan",
    "probe",
    "requested_settings",
    "usable_cores",
]
