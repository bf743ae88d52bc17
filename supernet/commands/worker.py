"""What a process that works for a command does first."""

import os
import threading
from multiprocessing.synchronize import Event


def end_with(parent: int, stop: Event) -> None:
    """From now on this process ends when its parent, the command of that number, was killed, or when `stop` is set."""

    def watch() -> None:
        while os.getppid() == parent and not stop.wait(0.5):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
