"""The process of one part: `python -m benchmarks.gpu.worker`, started by the conductor.

It imports what takes long and waits for its turn: a line on stdin with the rest of what it must know. So the next part's imports run beside
the part before, and its device is touched only when it is alone. It ends with its parent, whatever happens to that.
"""

import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

DONE, GONE, LATE, NOT_HERE = 0, 3, 4, 5  # exit codes: all checks have a result; the device is gone; no time; what the part needs is missing


def end_with(parent: int) -> None:
    """Kills this process and its children once the conductor is gone; also while a kernel hangs, which waits without Python's lock."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(words: list[str]) -> int:
    started: dict[str, Any] = json.loads(words[0])
    end_with(started["parent"])
    faulthandler.enable()
    # The conductor asks where a part hangs, before it kills it. Told on the log itself, which pytest puts something else in place of.
    faulthandler.register(signal.SIGUSR1, file=os.dup(2), all_threads=True)
    from benchmarks.gpu.checks import Bench, ContextIsGone, Report, Skipped, TimeIsUp
    from supernet.runs.journal import Journal

    part = importlib.import_module(started["module"])
    line = sys.stdin.readline()
    if not line:
        return DONE  # its turn does not come
    turn = json.loads(line)
    bench = Bench(started["device"], started["toy"], Path(started["work"]), Path(started["data"]) if started["data"] else None,
                  Journal(Path(started["journal"])), turn["ends"])
    report = Report(bench, started["part"], turn["done"])
    bench.journal.append({"kind": "ready", "part": started["part"]})
    try:
        part.run(bench, report)
    except TimeIsUp:
        return LATE
    except ContextIsGone:
        return GONE
    except Skipped as reason:
        report.note(skipped=str(reason))
        return NOT_HERE
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
