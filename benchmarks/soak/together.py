"""Several processes that want the same run at once."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.soak.cases import Case
from benchmarks.soak.kills import compared, last_line, unbroken
from benchmarks.soak.subjects import EVERY, LIMIT_S, SUBJECTS, left_by
from supernet.app.command_line import EXIT_ELSEWHERE
from tests.helpers import At, Ended, start
from tests.runs import folders

RESUMES, STARTS = 10, 2
TWENTY = 20


def cases(most: int) -> list[tuple[str, Callable[[], Case]]]:
    return [*((f"two resumes, {name} {n}", lambda name=name, n=n: two_resumes(name)) for name in ("search", "final training")
              for n in range(min(most, RESUMES // 2))),
            *((f"{TWENTY} starts with resume=auto {n}", twenty_of_one_job) for n in range(min(most, STARTS))),
            *((f"{TWENTY} starts without it {n}", twenty_apart) for n in range(min(most, STARTS)))]


def two_resumes(name: str) -> Case:
    """Of a run that was killed: one goes on with it; the other says who does, or that it is finished."""
    subject = SUBJECTS[name]
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where = Path(folder)
        subject.prepare(where)
        if subject.ended(where, EVERY[0], at=At(9, ".pt.")).code != -9:
            raise RuntimeError(f"{name} was not killed")
        processes = [start(subject.script, *subject.words(EVERY[0]), cwd=where, report=False) for _ in range(2)]
        ends = [process.wait(LIMIT_S) for process in processes]
        if why := badly(ends):
            return Case("lost", why)
        told = f"{sum(end.code == 0 and 'left alone' not in end.err for end in ends)} went on"
        return compared(subject.left(where), unbroken(name).left, told)


def twenty_of_one_job() -> Case:
    """One runs it; the others say that it does, or that it is finished."""
    subject = SUBJECTS["search"]
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where = Path(folder)
        processes = [start(subject.script, *subject.words(EVERY[1]), cwd=where, report=False) for _ in range(TWENTY)]
        ends = [process.wait(LIMIT_S) for process in processes]
        if why := badly(ends):
            return Case("lost", why)
        if len(folders(where)) != 1:
            return Case("lost", f"{len(folders(where))} folders were made")
        elsewhere, later = sum(end.code == EXIT_ELSEWHERE for end in ends), sum("left alone" in end.err for end in ends)
        return compared(subject.left(where), unbroken("search").left, f"1 ran, {elsewhere} said who does, {later} left it alone")


def twenty_apart() -> Case:
    """Without `resume=auto` each has a folder of its own, in the same second and with the same name."""
    subject = SUBJECTS["search"]
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where = Path(folder)
        words = [*subject.options, "epochs=1"]
        processes = [start(subject.script, *words, cwd=where, report=False) for _ in range(TWENTY)]
        ends = [process.wait(LIMIT_S) for process in processes]
        codes = [end for end in ends if end.code]
        if codes:
            return Case("lost", f"{len(codes)} of {TWENTY} failed: {last_line(codes[0])}")
        done = [folder for folder in folders(where) if (folder.status() or {}).get("status") == "finished"]
        if len(done) != TWENTY:
            return Case("lost", f"{len(done)} of {TWENTY} are finished")
        found = {tuple(sorted((key, str(value)) for key, value in left_by(folder).items())) for folder in done}
        return Case("survived", f"{TWENTY} folders, {len({f.path.name for f in done})} names") if len(found) == 1 else Case(
            "wrong", f"{len(found)} different results")


def badly(ends: list[Ended]) -> str:
    """What went wrong, if anything: at least one ended well, and the others said why they did nothing."""
    for end in ends:
        if end.code not in (0, EXIT_ELSEWHERE) or "Traceback" in end.err:
            return f"exit code {end.code}: {last_line(end)}"
    return "" if any(end.code == 0 for end in ends) else f"none ran it: {last_line(ends[0])}"
