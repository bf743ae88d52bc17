"""Mutants of the mathematical core, and what its tests find of them: `python -m benchmarks.mutation`. Here is what the result says."""

from collections.abc import Mapping, Sequence
from typing import Any


def scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """By room, in their order: how many mutants were killed, and of how many."""
    found: dict[str, list[int]] = {}
    for row in rows:
        of = found.setdefault(row["room"], [0, 0])
        of[0] += row["outcome"] == "killed"
        of[1] += 1
    return found


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was counted and what came out, for docs/measured.md."""
    killed, number = _total(scores(result["mutants"]))
    equal = sum(_is_equivalent(row) for row in result["mutants"])
    told = f"{killed} killed, {_share(killed, number)}"
    if equal:
        told += f"; without {equal} that compute the same {_share(killed, number - equal)}"
    return [(f"{number} mutants of the mathematical core (of {result['candidates']:,}, seed {result['seed']}), each against tests of its "
             "lines", told)]


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """By room; `before`: what the tests found that there were before this was first run."""
    now, before = scores(result["mutants"]), result.get("before", {})
    same = {room: sum(_is_equivalent(row) for row in result["mutants"] if row["room"] == room) for room in now}

    def cells(room: str, scored: Sequence[int], was: Sequence[int] | None, equal: int) -> Sequence[str]:
        return (room, str(scored[1]), *([str(was[0]) if was else "-"] if before else []), str(scored[0]), str(equal), _share(*scored))

    rows = [cells(room, scored, before.get(room), same[room]) for room, scored in now.items()]
    rows.append(cells("all", _total(now), _total(before) if before else None, sum(same.values())))
    return ("room", "mutants", *(["killed before"] if before else []), "killed", "compute the same", "share (95 %)"), rows


def notes(result: Mapping[str, Any]) -> list[str]:
    """The survivors, with the reason."""
    return [f"{row['name'].partition(':')[0]}, line {row['line']}, {row['name'].split(':', 3)[2]}: `{row['name'].split(': ', 1)[1]}`: "
            f"{row.get('judged', {}).get('reason', 'not judged yet')}" for row in result["mutants"] if row["outcome"] == "survived"]


def _is_equivalent(row: Mapping[str, Any]) -> bool:
    return row["outcome"] == "survived" and row.get("judged", {}).get("equivalent", False)


def _total(found: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    return sum(killed for killed, _ in found.values()), sum(number for _, number in found.values())


def _share(killed: int, number: int) -> str:
    from supernet.report.statistics import share_interval  # a trial forks before anything of ours is imported

    low, high = share_interval(killed, number)
    return f"{100 * killed / number:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
