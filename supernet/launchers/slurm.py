"""SLURM, by submitit: a job array, whose machines share the folder of the runs."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any, Literal

from supernet.launchers.base import NOT_STARTED, POLL_S, Outcome, Task, library, pass_on
from supernet.ranges import Count, Positive, Range, ranged

LOOK_S = 5.0  # between two looks at the queue, which is everybody's
LOST_S = 60.0
# How a script ends whose machine is taken back: it saved; or it had not begun, and the signal killed it.
PREEMPTED = (128 + signal.SIGTERM, 128 + signal.SIGUSR2, -signal.SIGTERM, -signal.SIGUSR2)


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
        looked, states, missed = 0.0, {}, {}
        while left:
            if monotonic() - looked > (LOOK_S if self.cluster == "slurm" else 0):
                states, looked = STATES[self.cluster](list(left)), monotonic()
                missed = {job: missed.get(job, looked) for job in left if job not in states}
            for job in [job for job in left if self.is_over(job, missed)]:
                task, outcome = left.pop(job), self.outcome(job)
                if outcome.code in PREEMPTED and not stopping():
                    left[executor.submit(Preemptible(work, self.threads), task)] = task
                else:
                    yield task, outcome
            if stopping():
                for job in [job for job in left if states.get(job) == "PENDING"]:
                    job.cancel(check=False)  # those at work see the file that says to stop
                    yield left.pop(job), Outcome(NOT_STARTED, "not started")
            yield None
            sleep(POLL_S)

    def is_over(self, job: Any, missed: Mapping[Any, float]) -> bool:
        """Whether it left a result; or is not in the queue any more, and has not left one for some time, which a file may need to be seen
        from another machine."""
        return job.paths.result_pickle.exists() or job in missed and monotonic() - missed[job] > (LOST_S if self.cluster == "slurm" else 0)

    def outcome(self, job: Any) -> Outcome:
        if not job.paths.result_pickle.exists():
            return Outcome(1, f"SLURM's job {job.job_id} is gone without a result: {job.paths.stderr} may say why")
        try:
            return job.result()
        except (self.submitit.core.utils.UncompletedJobError, self.submitit.core.utils.FailedJobError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return Outcome(1, f"SLURM's job {job.job_id}: {lines[0] if lines else 'failed'}"[:300])


def in_queue(jobs: Sequence[Any]) -> dict[Any, str]:
    """The states of those that SLURM still has. `squeue` knows them without the accounting that `sacct`, and so submitit, would ask."""
    listed = subprocess.run(["squeue", "--me", "--noheader", "--array", "--format=%i %T"], capture_output=True, text=True)
    if listed.returncode:
        return dict.fromkeys(jobs, "UNKNOWN")  # the controller is away for a while
    known = dict(line.split() for line in listed.stdout.splitlines())
    return {job: known[job.job_id] for job in jobs if job.job_id in known}


def at_work_here(jobs: Sequence[Any]) -> dict[Any, str]:
    """The same of submitit's processes on this machine."""
    return {job: "RUNNING" for job in jobs if not job.done()}


STATES = {"slurm": in_queue, "local": at_work_here}


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
