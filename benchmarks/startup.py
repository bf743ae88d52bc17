"""How long the scripts take to begin: `python -m benchmarks.startup`, from the repository root.

Every line is a process of its own, started `--rounds` times: wall and CPU seconds, medians. Then what the way to the first step is made
of, phase by phase in one process (digits, or `--options` of train_search.py), and the imports by package (`-X importtime`, the time of each
module alone, summed by its top-level package).
"""

import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHILD = "--first-step"  # what this module calls itself with, for the phases
HEAVY = ("matplotlib", "torchvision", "wandb", "PIL", "torch._dynamo")  # packages that no first step needs
LIBRARY = "import supernet.app.compose, supernet.training.stages, supernet.runs.run"
DYNAMO = "import torch, torch._dynamo (every torch.optim step imports it)"
COMMANDS: Mapping[str, Sequence[str]] = {
    "an empty program": ("-c", ""),
    "import supernet": ("-c", "import supernet"),
    "import torch": ("-c", "import torch"),
    DYNAMO: ("-c", "import torch, torch._dynamo"),
    "all that a search imports": ("-c", LIBRARY),
    "all that its report imports": ("-c", "import supernet.report.html"),
    "train_search.py --help": ("train_search.py", "--help"),
    "train_final.py --help": ("train_final.py", "--help"),
    "train_search.py dry_run=true (digits)": ("train_search.py", "dry_run=true", "threads=1"),
}


def seconds(arguments: Sequence[str]) -> tuple[float, float]:
    """Wall and CPU time of one Python process."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imports(statement: str) -> dict[str, float]:
    """Seconds by top-level package, the slowest first; those of less than a hundredth of all together as `others`."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", statement], cwd=ROOT, check=True, capture_output=True, text=True)
    spent: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            spent[name.strip().partition(".")[0]] += int(own) / 1e6
    slow = {name: own for name, own in spent.most_common() if own >= sum(spent.values()) / 100}
    return slow | {"others": sum(spent.values()) - sum(slow.values())}


class Phases:
    """Wall and CPU seconds by name, in order."""

    def __init__(self) -> None:
        self.spent: dict[str, dict[str, float]] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.spent[name] = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def first_step(overrides: Sequence[str]) -> dict[str, Any]:
    """The way of train_search.py to the end of its first steps, in this process. `unasked`: heavy packages that came along."""
    phases = Phases()
    with phases("import hydra"):
        from hydra import compose as hydra_compose
        from hydra import initialize_config_dir

        from supernet.app.checks import validate
        from supernet.app.command_line import composing, register
        from supernet.app.options import CONF
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"), composing():
        with phases("options"):
            cfg = hydra_compose("search", overrides=list(overrides))
            validate(cfg, "train_search")
        with phases("import torch, supernet"):
            import supernet.runs.run  # noqa: F401
            from supernet.app import compose
        with phases("data, network, relaxation"):
            parts = compose.search_parts(cfg)
        with phases("optimizers, loop"):
            loop = compose.search_stages(cfg, parts).loop
        with phases("first batches"):
            batches = next(iter(loop.train)), next(loop.alpha_batches)
        for name in ("first step", "second step"):
            with phases(name):
                loop.search.step(*batches)
    return {"phases": phases.spent, "unasked": [name for name in HEAVY if name in sys.modules]}


def main(argv: Sequence[str] | None = None) -> None:
    if argv is None and sys.argv[1:2] == [CHILD]:
        print(json.dumps(first_step(sys.argv[2:])))
        return
    # Only here, so that the children measure what the scripts import.
    from benchmarks.compare import begun, parser_for, prepared, summary, write
    from supernet.runs.progress import tracked

    parser = parser_for(__doc__, rounds=5, device=False)
    parser.add_argument("--options", nargs="*", default=["threads=1"], help="of train_search.py, for the phases")
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    ways = []
    for number in tracked(range(options.rounds + 1), "rounds"):
        for name, command in COMMANDS.items():
            took = seconds(command)
            if number:  # the first fills the disk's cache
                times[name].append(took)
        if number:
            child = [sys.executable, "-m", "benchmarks.startup", CHILD, *options.options]
            ways.append(json.loads(subprocess.run(child, cwd=ROOT, check=True, capture_output=True, text=True).stdout))
    phases = {name: {clock: statistics.median(way["phases"][name][clock] for way in ways) for clock in ("wall_s", "cpu_s")}
              for name in ways[0]["phases"]}
    result = begun("startup", argv, device) | {"rounds": options.rounds, "commands": {name: summary(took) for name, took in times.items()},
                                               "options": options.options, "phases": phases, "unasked": ways[0]["unasked"],
                                               "imports": imports(LIBRARY)}
    print("\n".join(" | ".join(cells) for cells in (table(result)[0], *table(result)[1])))
    print("imports of a search, s: " + ", ".join(f"{name} {spent:.3f}" for name, spent in result["imports"].items()))
    print(f"heavy packages imported on the way: {', '.join(result['unasked']) or 'none'}")
    write(options.json, result)


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and what came out, for docs/measured.md."""
    commands, phases = result["commands"], result["phases"]
    torch_s = commands[DYNAMO]["cpu_s"]
    return [("start-up, CPU seconds", f"`--help` {commands['train_search.py --help']['cpu_s']:.2f}; digits to the end of the first step "
             f"{sum(p['cpu_s'] for name, p in phases.items() if name != 'second step'):.2f}; the imports of torch and torch._dynamo "
             f"alone, in a process of their own, {torch_s:.2f}")]


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Each command, then each phase."""
    options = " ".join(result["options"])
    named = [*result["commands"].items(), *((f"{options}: {name}", spent) for name, spent in result["phases"].items())]
    return ("process or phase", "wall s", "CPU s"), [(name, f"{t['wall_s']:.3f}", f"{t['cpu_s']:.3f}") for name, t in named]


if __name__ == "__main__":
    main()
