"""SLURM, by submitit: a job array, whose machines share the folder of the runs."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Annotated, Any, Literal

from supernet.launchers.base import NOT_STARTED, POLL_S, Outcome, Task, library, pass_on
from supernet.ranges import Count, Positive, Range, ranged

PREEMPTED = (128 + signal.SIGTERM, 128 + signal.SIGUSR2)  # exit codes of a script that saved and ended, since the machine is taken back


@ranged
class Slurm:
    """A SLURM job for each task, at most `array_parallelism` of them at a time, each with `cpus_per_task` cores (and so many threads).

    SLURM sends SIGUSR2 `signal_delay_s` before a job's time is over or it is preempted, or SIGTERM: the run saves and ends, and the job is
    queued anew, at most `max_num_timeout` times for want of time. `additional` are further options of sbatch, by their names. cluster:
    `local` runs the same on this machine without SLURM.
    """

    def __init__(self, partition: str | None = None, timeout_min: Count = 24 * 60, cpus_per_task: Count = 1,
                 gpus_per_node: Annotated[int, Range(0, 64)] = 0, mem_gb: Positive | None = None, array_parallelism: Count = 256,
                 signal_delay_s: Count = 90, max_num_timeout: Annotated[int, Range(0, 100_000)] = 100,
                 additional: Mapping[str, Any] | None = None, cluster: Literal["slurm", "local"] = "slurm") -> None:
        self.cluster, self.submitit = cluster, library("submitit", "slurm")
        slurm = {"array_parallelism": array_parallelism, "signal_delay_s": signal_delay_s, "additional_parameters": dict(additional or {}),
                 **({} if partition is None else {"partition": partition})}
        self.max_num_timeout = max_num_timeout
        self.parameters = {"timeout_min": timeout_min, "cpus_per_task": cpus_per_task, "gpus_per_node": gpus_per_node,
                           **({} if mem_gb is None else {"mem_gb": mem_gb}), **{f"slurm_{name}": value for name, value in slurm.items()}}
        self.threads = (("OMP_NUM_THREADS", str(cpus_per_task)),)

    def ended(self, work: Callable[[Task], Outcome], tasks: Sequence[Task],
              stopping: Callable[[], bool]) -> Iterator[tuple[Task, Outcome] | None]:
        if not tasks:
            return
        executor = self.submitit.AutoExecutor(folder=Path(tasks[0].log).parent / "slurm" / "%j", cluster=self.cluster,
                                              slurm_max_num_timeout=self.max_num_timeout)
        executor.update_parameters(name="supernet", **self.parameters)
        with executor.batch():
            submitted = [executor.submit(Preemptible(work, self.threads), task) for task in tasks]
        left = dict(zip(submitted, tasks, strict=True))
        cancelled = set()
        while left:
            for job in list(left):
                if stopping() and job not in cancelled and job.state in ("PENDING", "UNKNOWN", "REQUEUED"):
                    job.cancel(check=False)  # those at work see the file that says to stop
                    cancelled.add(job)
                if not (job.done() or job in cancelled and job.state not in ("RUNNING", "COMPLETING")):
                    continue
                task, outcome = left.pop(job), self.outcome(job, job in cancelled)
                if outcome.code in PREEMPTED and not stopping():
                    left[executor.submit(Preemptible(work, self.threads), task)] = task
                else:
                    yield task, outcome
            yield None
            sleep(POLL_S)

    def outcome(self, job: Any, cancelled: bool) -> Outcome:
        try:
            return job.result()
        except (self.submitit.core.utils.UncompletedJobError, self.submitit.core.utils.FailedJobError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return Outcome(NOT_STARTED if cancelled else 1, f"job {job.job_id} of SLURM: {lines[0] if lines else 'lost'}"[:300])


class Preemptible:
    """`work` for submitit, which calls `checkpoint` where SLURM says that the job must go, and then queues what that gives."""

    def __init__(self, work: Callable[[Task], Outcome], environment: tuple[tuple[str, str], ...]) -> None:
        self.work, self.environment = work, environment

    def __call__(self, task: Task) -> Outcome:
        return self.work(replace(task, environment=(*task.environment, *self.environment)))

    def checkpoint(self, task: Task) -> Any:
        """Called within the handler of the signal, in the process that waits for the script."""
        pass_on(signal.SIGUSR2)
        return library("submitit", "slurm").helpers.DelayedSubmission(self, task)
