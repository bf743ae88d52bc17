"""Ray: this machine, or a cluster whose machines share the folder of the runs."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from supernet.launchers.base import POLL_S, Outcome, Task, library
from supernet.ranges import Positive, Range, ranged


@ranged
class Ray:
    """Ray tasks of `num_cpus` and `num_gpus` each. address: null begins a Ray of its own on this machine, `auto` joins the cluster that
    this machine is part of. A task whose machine is lost is begun elsewhere by Ray, and goes on from its checkpoint."""

    def __init__(self, address: str | None = None, num_cpus: Positive = 1, num_gpus: Annotated[float, Range(0, 64)] = 0,
                 max_retries: Annotated[int, Range(0, 1000)] = 3) -> None:
        self.address, self.num_cpus, self.num_gpus, self.max_retries = address, num_cpus, num_gpus, max_retries
        self.ray = library("ray", "ray")

    def ended(self, work: Callable[[Task], Outcome], tasks: Sequence[Task],
              stopping: Callable[[], bool]) -> Iterator[tuple[Task, Outcome] | None]:
        ray = self.ray
        with keeping_handlers():
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False if self.address is None else None,
                     runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}})
        try:
            remote = ray.remote(num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_retries=self.max_retries)(work)
            left = {remote.remote(task): task for task in tasks}
            while left:
                for ref in ray.wait(list(left), num_returns=1, timeout=POLL_S)[0]:
                    try:
                        outcome = ray.get(ref)
                    except ray.exceptions.RayError as error:
                        outcome = Outcome(1, f"ray: {type(error).__name__}: {' '.join(str(error).split())}"[:300])
                    yield left.pop(ref), outcome
                yield None
        finally:
            ray.shutdown()


class keeping_handlers:  # noqa: N801  (it is used as a function)
    """Ray puts a handler of its own in place of that of SIGTERM; how a sweep stops is the sweep's business."""

    def __enter__(self) -> None:
        self.main = threading.current_thread() is threading.main_thread()
        self.before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items() if self.main else ():
            signal.signal(number, handler or signal.SIG_DFL)
