"""What every worker process needs: to end with the process that started it."""
from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time


def _wait() -> None:
    """The wait is on a pipe that the parent alone holds open, so it ends at once, on every system. A run under way saves its state at
    SIGTERM; anything else ends there."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
    os._exit(1)


def end_with_parent() -> None:
    """Ends this process once its parent is gone, killed as a kernel may be, which tells its workers nothing. For a pool's initializer."""
    threading.Thread(target=_wait, daemon=True).start()
