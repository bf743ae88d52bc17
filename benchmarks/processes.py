"""Two processes against one: `python -m benchmarks.processes --root data`, from the repository root.

- In float64, with synchronised norms, half a batch each: the largest difference after three steps, of each kind of search, and of a final
  training (the cases of tests/ranks.py).
- A first-order step of the DARTS supernet of CIFAR-10 (8 cells, C=16) by one process and by two of one thread each: wall and CPU time, and
  what the messages of it take by themselves, which gives latency and bandwidth of docs/processes.md. Rounds of both take turns.
- A reduced search on CIFAR-10 by the script, alone and under torchrun.
- A process killed at a random moment (--kills times): how long the other goes on, what it says, and whether both go on to the same bits.

Parts that are not asked for (--only) are taken from the file of --json, where there is one.
"""

import json
import multiprocessing
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.compare import begun, parser_for, prepared, seconds, summary, where, write

ROOT = Path(__file__).resolve().parents[1]
EXACT = {"softmax": "softmax", "gdas": "GDAS", "dirichlet": "Dirichlet", "pc_darts": "PC-DARTS", "finite_difference":
         "second order, finite difference", "unrolled": "second order, unrolled", "text": "recurrent cells on text, second order",
         "final": "final training"}
BATCH = 16
SIZES = {"layers": 8, "channels": 16, "num_classes": 10, "in_channels": 3, "image_size": (32, 32)}
WARM_UP, LATENCIES = 2, 200
SEARCH = ("dataset=cifar10", "split.max_train=512", "split.max_val=512", "layers=5", "channels=8", "batch_size=32", "epochs=2", "threads=1",
          "wandb.mode=disabled", "output=runs")
LONGEST_S = 2.0  # from a checkpoint to the kill


def differences() -> dict[str, float]:
    """By case, the largest difference of any weight, alpha, momentum, statistic or loss."""
    from supernet.processes.group import ALONE
    from tests import ranks

    with tempfile.TemporaryDirectory() as folder:
        found = ranks.found_by(2, Path(folder))[0]
    largest = {}
    for case in EXACT:
        one, two = dict(ranks.numbers(ranks.EXACT[case](ALONE))), dict(ranks.numbers(found[case]))
        largest[case] = max(float((two[at] - value).abs().max()) for at, value in one.items() if value.numel())
    return largest


# ---- a step


def stepping(rank: int, size: int, folder: str, rounds: int, out: str) -> None:
    """What one process measures of a step, written to `out`."""
    from torch import distributed

    from supernet.bilevel import Bilevel
    from supernet.hypergradients.first_order import first_order
    from supernet.networks.build import search_normalisation
    from supernet.processes.group import ALONE
    from supernet.processes.together import Together
    from supernet.relaxations.softmax import Softmax
    from supernet.spaces import darts
    from supernet.tasks.classification import Classification
    from supernet.training.records import Generators

    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    group = ALONE if size == 1 else Together(rank, size, distributed.FileStore(folder, size), patience_s=600)
    space = darts.make()
    torch.manual_seed(0)
    net = space.network(space.candidates(), norm=search_normalisation("always", "running"), **SIZES).to(memory_format=torch.channels_last)
    relaxation = Softmax(space, torch.Generator().manual_seed(0))
    search = Bilevel(net, relaxation, first_order, Classification(), torch.optim.SGD(net.parameters(), lr=0.025, momentum=0.9),
                     torch.optim.Adam(relaxation.parameters()), Generators.from_seed(0, {"alpha": cpu, "net": cpu}), clip_norm=5.0,
                     group=group)
    images, labels = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last), torch.randint(10, (BATCH,))
    cut = group.cut(torch.arange(BATCH))
    batch = group.batch((images[cut.items], labels[cut.items]), cut)
    for _ in range(WARM_UP):
        search.step(batch, batch)
    times = []
    before = group.traffic
    for _ in range(rounds):
        group.wait()
        times.append(seconds(lambda: search.step(batch, batch), cpu))
    found: dict[str, Any] = {**summary(times), "size": size}
    if size > 1:
        bytes_, messages = ((now - then) // rounds for now, then in zip(group.traffic, before))
        whole, little = torch.zeros(bytes_ // 4), torch.zeros(1)
        found |= {"bytes": bytes_, "messages": messages,
                  "message_s": min(alone(group, whole, cpu) for _ in range(10 * rounds)),  # what others do here only adds to it
                  "latency_s": min(alone(group, little, cpu) for _ in range(LATENCIES))}
        group.leave()
    Path(out).write_text(json.dumps(found))


def alone(group: Any, tensor: torch.Tensor, device: torch.device) -> float:
    """Seconds of one sum over the processes that all begin together."""
    group.wait()
    return seconds(lambda: group.sum_(tensor), device)[0]


def steps(rounds: int) -> dict[str, Any]:
    """By the number of processes, what the first of them measured."""
    found, spawn = {}, multiprocessing.get_context("spawn")
    for size in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            started = [spawn.Process(target=stepping, args=(rank, size, f"{folder}/store", rounds, f"{folder}/{rank}.json"))
                       for rank in range(size)]
            for process in started:
                process.start()
            for process in started:
                process.join()
            if any(process.exitcode for process in started):
                raise RuntimeError(f"a process that measures steps ended with {[process.exitcode for process in started]}")
            every = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(size)]
        found[str(size)] = every[0] | {"cpu_s_of_all": sum(one["cpu_s"] for one in every)}
        print(f"a step by {size}: {found[str(size)]['wall_s']:.3f} s, {found[str(size)]['cpu_s_of_all']:.3f} s of CPU", flush=True)
    return found


# ---- a search


def searches(root: str, rounds: int) -> dict[str, Any]:
    """By the number of processes, wall and CPU seconds of a whole search and of its second epoch, by round; they take turns."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    sides = {"1": [sys.executable], "2": launch}
    found: dict[str, Any] = {size: [] for size in sides}
    for n in range(rounds):
        for size in list(sides)[:: 1 if n % 2 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                command = [*sides[size], str(ROOT / "train_search.py"), *SEARCH, f"dataset.root={Path(root).resolve()}"]
                began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {
                    "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])})
                wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
                if done.returncode:
                    raise RuntimeError(f"a search by {size} ended with {done.returncode}: {done.stderr[-500:]}")
                (metrics,) = Path(folder).glob("runs/*/metrics.jsonl")
                last = json.loads(metrics.read_text().splitlines()[-1])
            found[size].append({"wall_s": wall, "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                                "epoch_s": last["seconds"]})
            print(f"a search by {size}: {wall:.1f} s, an epoch {last['seconds']:.1f} s", flush=True)
    return {size: {key: statistics.median(one[key] for one in every) for key in every[0]} | {"rounds": every}
            for size, every in found.items()}


# ---- kills


def kills(number: int) -> list[dict[str, Any]]:
    """Of each kill: which process, how long after a checkpoint, seconds until the other had ended, its exit code and last line, and whether
    both went on to the bits of a search that was not broken."""
    from tests.runs import finished, outcome
    from tests.torchrun import EVERY_STEP, at_work, both

    options = ("split.max_train=41", "split.max_val=16", "space.nodes=1", "space.ops=[none,max_pool_3x3,skip_connect,sep_conv_3x3]",
               "layers=3", "channels=2", "batch_size=8", "epochs=12", "drop_path_prob=0.2")
    rng, found = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder, "unbroken")
        where.mkdir()
        both("train_search", *options, EVERY_STEP, cwd=where)
        unbroken = outcome(finished(where))
        while len(found) < number:
            where = Path(folder, str(len(found)))
            where.mkdir(exist_ok=True)
            rank, after = rng.randrange(2), rng.uniform(0, LONGEST_S)
            processes = at_work("train_search", *options, "resume=auto", cwd=where)
            time.sleep(after)
            if any(process.has_ended() for process in processes):
                raise RuntimeError(f"a search was over {after:.1f} s after its first checkpoint: {processes[0].wait().err[-300:]}")
            os.kill(processes[rank].pid, signal.SIGKILL)
            began = time.monotonic()
            other = processes[1 - rank].wait(timeout_s=120)
            took = time.monotonic() - began
            processes[rank].wait()
            again = both("train_search", *options, EVERY_STEP, "resume=auto", cwd=where)
            same = [one.code for one in again] == [0, 0] and outcome(finished(where)) == unbroken
            said = re.sub(r"\(.*\)", "(...)", (other.err.strip().splitlines() or [""])[-1])
            found.append({"killed": rank, "after_s": after, "ended_s": took, "code": other.code, "said": said, "same_bits": same})
            print(f"kill {len(found)}: process {rank} after {after:.1f} s; the other ended {took:.2f} s later with {other.code}, "
                  f"{'the same bits' if same else 'OTHER BITS'}", flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__, rounds=5, device=False)
    parser.add_argument("--root", default="data", help="of CIFAR-10")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", default="", help="some of differences,steps,search,kills; all unless given")
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    parts: dict[str, Callable[[], Any]] = {"differences": differences, "steps": lambda: steps(options.rounds),
                                           "search": lambda: searches(options.root, max(1, options.rounds // 2)),
                                           "kills": lambda: kills(options.kills)}
    wanted = options.only.split(",") if options.only else list(parts)
    if not set(wanted) <= set(parts):
        parser.error(f"--only must be some of {','.join(parts)}, got {options.only!r}")
    kept = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    result = begun("processes", argv, device) | {"rounds": options.rounds, "batch": BATCH}
    result |= {name: make() if name in wanted else kept.get(name) for name, make in parts.items()}
    head, rows = table(result)
    print("\n".join(" | ".join(cells) for cells in (head, *rows)))
    write(options.json, result)


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and what came out, for docs/measured.md."""
    rows = []
    if found := result["differences"]:
        rows.append(("two processes with half a batch each against one, float64, three steps: largest difference of any number",
                     f"{max(found.values()):.1g} ({', '.join(f'{EXACT[case]} {value:.1g}' for case, value in found.items())})"))
    if found := result["search"]:
        one, two = found["1"], found["2"]
        rows.append((f"a reduced search on CIFAR-10 by one and by two processes ({where(result)} each)",
                     f"an epoch {one['epoch_s']:.1f} and {two['epoch_s']:.1f} s, all {one['wall_s']:.1f} and {two['wall_s']:.1f} s, CPU "
                     f"{one['cpu_s']:.1f} and {two['cpu_s']:.1f} s"))
    if found := result["kills"]:
        ended = [kill["ended_s"] for kill in found]
        rows.append((f"one of two processes killed, {len(found)} times",
                     f"the other has ended within {max(ended):.2f} s (median {statistics.median(ended):.2f} s); "
                     f"{sum(kill['same_bits'] for kill in found)} went on to the same bits"))
    return rows


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Steps by one and by two, and what the messages of one take."""
    rows: list[Sequence[str]] = []
    if found := result["steps"]:
        one, two = found["1"], found["2"]
        rows += [(f"first-order step, batch {result['batch']}: wall s", f"{one['wall_s']:.3f}", f"{two['wall_s']:.3f}"),
                 ("the same: CPU s, of all", f"{one['cpu_s_of_all']:.3f}", f"{two['cpu_s_of_all']:.3f}"),
                 (f"its {two['bytes'] / 2**20:.2f} MiB as one message: ms", "", f"{1000 * two['message_s']:.2f}"),
                 (f"a message of one number, of {two['messages']}: ms", "", f"{1000 * two['latency_s']:.3f}")]
    if found := result["search"]:
        rows += [(f"search: {name}", *(f"{found[size][key]:.1f}" for size in ("1", "2")))
                 for name, key in (("wall s", "wall_s"), ("CPU s, of all", "cpu_s"), ("an epoch, wall s", "epoch_s"))]
    return ("what", "one process", "two processes"), rows


def notes(result: Mapping[str, Any]) -> list[str]:
    """What processes said when another one was killed."""
    said = Counter((kill["killed"], kill["code"], kill["said"]) for kill in result["kills"] or ())
    return [f"Process {rank} killed, {times} times; the other ended with {code} and said: {text or 'nothing'}."
            for (rank, code, text), times in sorted(said.items())]


if __name__ == "__main__":
    main()
