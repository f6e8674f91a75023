"""Processes that end with the process that has started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>


def end_with(parent: int) -> None:
    """Lets Linux kill this process when its parent dies, which a SIGKILL of the parent alone would leave running."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)
