"""``python -m udabench`` as a sweep's child: ``python -m udabench.sweep.child PARENT ARGUMENTS...``.

It ends with its parent, however that dies: a training that nobody waits for would hold its GPU and its folder.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of Linux' <sys/prctl.h>. Elsewhere an orphan goes on, and the next sweep waits for it."""


def main() -> None:
    """Bind this process to its parent, then be the command line."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        # SIGTERM: it finishes its step and saves.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)
    # Some clusters send it to every process of a job before its time is up; it is meant for our parent.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    sys.argv = ["udabench", *sys.argv[2:]]
    runpy.run_module("udabench", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
