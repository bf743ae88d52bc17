"""What a process that works for a command does first."""

import os
import threading
import time


def end_with(parent: int) -> None:
    """From now on this process ends when its parent, the command of that number, was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
