"""Several processes of this machine, that share its cores, or its GPUs."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from queue import SimpleQueue
from typing import Annotated

from supernet.launchers.base import POLL_S, Outcome, Task, cores, share
from supernet.ranges import Range, ranged


@ranged
class Local:
    """At most `processes` at a time (null: one for each GPU; without any, one for each core). Each has its share of the cores as threads,
    unless its own options say `threads`, and one GPU, where there are any."""

    def __init__(self, processes: Annotated[int, Range(1, 1024)] | None = None) -> None:
        self.processes = processes

    def ended(self, work: Callable[[Task], Outcome], tasks: Sequence[Task],
              stopping: Callable[[], bool]) -> Iterator[tuple[Task, Outcome] | None]:
        gpus = visible_gpus()
        places = min(self.processes or len(gpus) or cores(), max(1, len(tasks)))
        free: SimpleQueue[tuple[tuple[str, str], ...]] = SimpleQueue()
        for n in range(places):
            free.put((*share(places), *((("CUDA_VISIBLE_DEVICES", gpus[n % len(gpus)]),) if gpus else ())))

        def at_a_place(task: Task) -> Outcome:
            place = free.get()
            try:
                return work(replace(task, environment=(*task.environment, *place)))
            finally:
                free.put(place)

        with ThreadPoolExecutor(places) as pool:
            left: dict[Future[Outcome], Task] = {pool.submit(at_a_place, task): task for task in tasks}
            while left:
                for future in wait(left, timeout=POLL_S, return_when=FIRST_COMPLETED).done:
                    yield left.pop(future), future.result()
                yield None


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(n) for n in range(torch.cuda.device_count())] if given is None else given.split(",")[:torch.cuda.device_count()]
