"""What a process that works for a command does first."""

import os
import threading
from multiprocessing.connection import Connection


def end_with(parent: int, line: Connection) -> None:
    """From now on this process ends when its parent, the command of that number, was killed, or closes the other end of the line, from
    which nothing else comes. (An event would wait for every process that waits for it, also for one that was killed.)"""

    def watch() -> None:
        while os.getppid() == parent and not line.poll(0.5):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
