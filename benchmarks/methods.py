"""The table of methods: for each whether its equation tests, the planted task and the smoke run pass, how long that takes, what was
published and what was measured here.

    python -m pytest -m "equation and not slow" --junitxml=build/equations.xml
    python -m pytest tests/test_presets.py --junitxml=build/presets.xml
    python -m pytest tests/test_planted.py -m "slow or not slow" --junitxml=build/planted.xml
    python -m benchmarks.methods build/*.xml

Test results come from the junit files alone: what failed or was not run says so. The files' results are added to those kept in
benchmarks/results/methods.json (the newest of a test counts; `--fresh` starts from none), from which the table can be made again without
any. Published numbers are those of the presets' comments, ours those of benchmarks/results/nasbench201_methods.json where it exists. Writes
docs/methods_table.md and prints it.

A test says what it speaks of by a property: `equation` (the mark of that name sets it), `smoke` (a preset), `planted` and
`planted_seeds` (a method), beside the last `solved`.
"""

import argparse
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
TRUTHS = ("cifar10", "cifar100", "imagenet16")
DATASETS = ("cifar10", "imagenet", "nasbench201", "ptb")
WITHOUT_PRESET = ("conjugate_gradient", "darts_unrolled", "reinmax")  # parts that no published preset is made of
KINDS = ("equation", "planted", "planted_seeds", "smoke")
COLUMNS = ("method", "presets", "equation tests", "planted task", "five seeds", "smoke run", "published", "ours")

Case = dict[str, Any]


def presets() -> dict[str, list[str]]:
    """By method, in alphabetical order, the names of its presets."""
    found: dict[str, list[str]] = {name: [] for name in WITHOUT_PRESET}
    for path in sorted((ROOT / "conf/experiment").glob("*.yaml")):
        method, _, dataset = path.stem.rpartition("_")
        if dataset not in DATASETS:
            raise ValueError(f"a preset is called <method>_<dataset>, the data set one of {', '.join(DATASETS)}; got {path.name}")
        found.setdefault(method, []).append(path.stem)
    return dict(sorted(found.items()))


def published(preset: str) -> str:
    """What the comment at the head of a preset says after `Published:` or `Reported:`, to the end of its sentence; or nothing."""
    lines = (ROOT / "conf/experiment" / f"{preset}.yaml").read_text().splitlines()
    head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    match = re.search(r"\b(?:Published|Reported): (.*?)\.(?= [A-Z]|$)", head)
    return match.group(1) if match else ""


def cases(paths: Iterable[Path]) -> dict[str, Case]:
    """The tests of junit files that say what they speak of, by name: `outcome` (passed, failed, skipped), `seconds`, `properties` as pairs,
    `why` where it was skipped. A later file's result replaces an earlier one's."""
    found = {}
    for path in paths:
        for node in ElementTree.parse(path).getroot().iter("testcase"):
            properties = [[p.get("name"), p.get("value")] for p in node.iter("property")]
            if not any(name in KINDS for name, _ in properties):
                continue
            bad, skipped = node.find("failure") is not None or node.find("error") is not None, node.find("skipped")
            case = {"outcome": "failed" if bad else "passed" if skipped is None else "skipped", "seconds": float(node.get("time", 0)),
                    "properties": properties}
            if skipped is not None:
                case["why"] = skipped.get("message", "")
            found[f"{node.get('classname')}::{node.get('name')}"] = case
    return found


def of(results: Mapping[str, Case], kind: str, name: str) -> list[Case]:
    """The tests that speak of `name` as `kind`."""
    return [case for case in results.values() if [kind, name] in case["properties"]]


def outcome(found: list[Case], counted: bool = False) -> str:
    """`passed`, how many of several, and the seconds; FAILED, skipped or not run where that is so."""
    if not found:
        return "not run"
    passed = sum(case["outcome"] == "passed" for case in found)
    skipped = sum(case["outcome"] == "skipped" for case in found)
    seconds = f"{sum(case['seconds'] for case in found):.1f} s"
    told = f"{passed} of {len(found)}" if counted or len(found) > 1 else "passed"
    if passed + skipped < len(found):
        return f"**FAILED**: {passed} of {len(found)} passed, {seconds}"
    return f"{told}, {seconds}" if not skipped else f"{passed} of {len(found)}, {skipped} skipped, {seconds}"


def over_seeds(found: list[Case]) -> str:
    """How many seeds were solved, and that it was not enough where the test failed, or is known to."""
    if not found:
        return "not run"
    case = found[-1]
    solved = dict(case["properties"]).get("solved", "no result")
    if case["outcome"] == "failed":
        return f"**FAILED**: {solved}"
    return f"{solved} (expected: {case['why']})" if case["outcome"] == "skipped" else solved


def measured(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """By method, the table accuracy of what our searches on NAS-Bench-201 found."""
    return {row["method"]: f"NAS-Bench-201, reduced schedule: {row['cifar10_mean']:.2f} +- {row['cifar10_std']:.2f} % over {row['runs']} "
                           "searches" for row in rows}


def table(results: Mapping[str, Case], ours: Mapping[str, str]) -> list[list[str]]:
    """A row a method."""
    rows = []
    for method, names in presets().items():
        smoke = [(name, of(results, "smoke", name)) for name in names]
        # a preset whose smoke run is missing is told by name, beside those that ran
        missing = [name for name, found in smoke if not found]
        ran = [case for _, found in smoke for case in found]
        runs = "no preset" if not names else outcome(ran)
        if ran and missing:
            runs += f"; not run: {', '.join(missing)}"
        said = {name.rpartition("_")[2]: published(name) for name in names if published(name)}
        quoted = [f"{dataset}: {text}" if len(said) > 1 else text for dataset, text in said.items()]
        rows.append([method, "<br>".join(f"`{name}`" for name in names) or "none", outcome(of(results, "equation", method), counted=True),
                     outcome(of(results, "planted", method)), over_seeds(of(results, "planted_seeds", method)), runs,
                     "<br>".join(quoted) or "none", ours.get(method, "not measured")])
    return rows


def markdown(rows: Iterable[Sequence[str]], about: str, searches: str = "") -> str:
    return ("# Methods: what is proved and what was measured\n\nMade by `python -m benchmarks.methods`; not written by hand. "
            f"[methods.md](methods.md) has the equations.\n\n{about}\n\n" + "\n".join(markdown_table([COLUMNS, *rows])) + "\n" + searches)


def searches(found: Mapping[str, Any]) -> str:
    """What our searches on NAS-Bench-201 found, beside random search and the published rows."""
    rows = [(f"`{row['method']}`", *(f"{row[f'{d}_mean']:.2f} ± {row[f'{d}_std']:.2f}" for d in TRUTHS), f"{row['minutes']:.1f}",
             row["published"] or "none") for row in found["rows"]]
    rows += [(f"the best of {n} random cells, by the table's validation", f"{value:.2f}", "", "", "", "")
             for n, value in found["random_search"].items()]
    rows += [("a random cell", f"{found['random_cell']:.2f}", "", "", "", ""), ("the best cell", f"{found['best']:.2f}", "", "", "", "")]
    schedule, known = found["schedule"], found["environment"]
    told = ", ".join(f"`{key}={value}`" for key, value in schedule.items() if key not in ("own", "wandb.mode", "keep_checkpoints"))
    own = "; ".join(f"{name} with " + ", ".join(f"`{k}={v}`" for k, v in options.items()) for name, options in schedule["own"].items())
    head = ("method", "CIFAR-10", "CIFAR-100", "ImageNet16-120", "minutes", "published")
    commit = (known["git_commit"] or "unknown")[:12]
    return ("\n## Searches on NAS-Bench-201, reduced schedule\n\nTrue test accuracy (%) of the cells that searches on CIFAR-10 end with: "
            f"mean ± standard deviation over {found['rows'][0]['runs']} searches (seeds), by `python -m benchmarks.nasbench201`: {told}; "
            f"{own}. {known['cpu']}, torch {known['torch']}, commit {commit}; minutes with as many searches at a time as there are cores. "
            "*published*: CIFAR-10, the whole schedule (17 layers, C=16, 25,000 + 25,000 images, 50 epochs or more): **another schedule**, "
            "for the order of magnitude alone.\n\n" + "\n".join(markdown_table([head, *rows])) + "\n")


ABOUT = """\
- *equation tests*: of those that compare the method with its equation, with what its paper claims or with its official code written out,
  how many pass.
- *planted task*: does a search of 120 steps find the one op that matters (`tests/planted.py`), with one seed; *five seeds*: how many of
  five do, of which four are asked for (`tests/test_planted.py` names those that find fewer, and why).
- *smoke run*: the presets, shrunk to seconds by `profile=smoke`.
- Seconds are those of the tests on the machine that ran them, two at a time beside other work.
- *published*: test error or accuracy as the presets quote it, with their sources there; `[mem]` is from memory and unconfirmed.
- *ours*: what we measured on the same benchmark, always with a schedule that the cell names."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("junit", nargs="*", type=Path, help="files that pytest --junitxml wrote")
    parser.add_argument("--fresh", action="store_true", help="forget the results that were kept")
    parser.add_argument("--results", type=Path, default=RESULTS / "methods.json")
    parser.add_argument("--searches", type=Path, default=RESULTS / "nasbench201_methods.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/methods_table.md")
    options = parser.parse_args(arguments)
    for path in options.junit:
        if not path.is_file():
            parser.error(f"there is no file {path}")
    kept = {} if options.fresh or not options.results.is_file() else json.loads(options.results.read_text())
    results = dict(sorted((kept | cases(options.junit)).items()))
    found = json.loads(options.searches.read_text()) if options.searches.is_file() else None
    ours = measured(found["rows"]) if found else {}
    text = markdown(table(results, ours), ABOUT, searches(found) if found else "")
    if options.junit:
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in results.items())
        options.results.write_text(f"{{\n{lines}\n}}\n")
    options.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
