"""The hardware of this machine (`probe`) and the settings chosen for it (`plan`, a pure function of what `probe` found).

No module here imports torch before a function needs it, because the launcher plans before it starts the processes of a run.
"""

from arclight.hardware.backend import GRAPH_MODES, apply_backend_settings
from arclight.hardware.container_limits import usable_cores
from arclight.hardware.decision import Decision
from arclight.hardware.devices import accumulation_steps, count_devices
from arclight.hardware.hardware_info import Gpu, HardwareInfo, probe
from arclight.hardware.plan import check_settings, for_trainer, plan, requested_settings

__all__ = [
    "GRAPH_MODES",
    "Decision",
    "Gpu",
    "HardwareInfo",
    "accumulation_steps",
    "apply_backend_settings",
    "check_settings",
    "count_devices",
    "for_trainer",
    "plan",
    "probe",
    "requested_settings",
    "usable_cores",
]
