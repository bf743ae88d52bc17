"""`python -m benchmarks.soak`: what runs outlive, counted. `__main__` has the command, `cases` the file of results; each part is a module.

The figures of the pages (`benchmarks.report`) are made here, of results alone: nothing is imported that a run needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PARTS = {"kill": "`kill -9` at a random moment, gone on with", "stop": "SIGTERM or SIGINT at a random moment, gone on with",
         "bit": "one flipped bit in a file of a run, a sweep or a table, all readers and going on",
         "cut": "such a file cut off, all readers and going on", "room": "a full disk, or a limit on the size of files; gone on with",
         "together": "two resumes of one run, and twenty starts, at once"}
OUTCOMES = {"survived": "survived", "told": "refused with a line", "lost": "lost", "wrong": "silently wrong"}


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of docs/measured.md."""
    found = [(about, counted([case["outcome"] for case in result["parts"][part].values()]))
             for part, about in PARTS.items() if part in result["parts"]]
    for name, seen in result["parts"].get("memory", {}).items():
        found.append((f"memory of 5,000 steps, {name}", held(seen)))
    for name, seen in result["parts"].get("records", {}).items():
        found.append((f"records of a search of DARTS's space, {name}", kept(seen)))
    return found


def table(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table of benchmarks/README.md: what was done to what."""
    rows = []
    for part in (part for part in PARTS if part in result["parts"]):
        for name, outcomes in grouped(part, result["parts"][part]):
            rows.append([part, name, f"{len(outcomes)}", *(f"{outcomes.count(outcome)}" for outcome in OUTCOMES)])
    return ["part", "what", "tried", *OUTCOMES.values()], rows


def notes(result: Mapping[str, Any]) -> list[str]:
    """What is measured and not judged."""
    parts = result["parts"]
    return [*(f"Memory, {name}: {held(seen)}." for name, seen in parts.get("memory", {}).items()),
            *(f"Records, {name}: {kept(seen)}." for name, seen in parts.get("records", {}).items())]


def counted(outcomes: Sequence[str]) -> str:
    return f"{len(outcomes)} tried: " + ", ".join(f"{outcomes.count(outcome)} {said}" for outcome, said in OUTCOMES.items())


def grouped(part: str, cases: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """The outcomes of a part by what was run; of damages by the folder that was damaged, which each says first."""
    found: dict[str, list[str]] = {}
    for name, case in cases.items():
        what = case["said"].partition(",")[0] if part in ("bit", "cut") else name.rstrip("0123456789").strip()
        found.setdefault(what, []).append(case["outcome"])
    yield from found.items()


def held(seen: Mapping[str, Any]) -> str:
    steps, memory = (", ".join(f"{value:{form}}" for value in seen[key]) for key, form in (("steps", ","), ("memory_mib", ".1f")))
    descriptors, threads = (" ".join(map(str, dict.fromkeys(seen[key]))) for key in ("descriptors", "threads"))
    return (f"{memory} MiB at {steps}; {descriptors} file descriptors, {threads} thread(s); journals "
            f"{seen['journal_bytes'][-1] / seen['steps'][-1]:,.0f} bytes a step")


def kept(seen: Mapping[str, Any]) -> str:
    return (f"{seen['snapshots']:,} snapshots of the alphas take {seen['alphas_mb']:.1f} MB of memory, {seen['checkpoint_mb']:.1f} MB of "
            f"each checkpoint; journals {seen['journals_mb']:.1f} MB")
