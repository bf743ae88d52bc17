"""Proves and measures everything on a GPU, in minutes: `python -m benchmarks.gpu`, from the repository root. docs/gpu.md has the rest.

Results go to gpu.jsonl in the folder of results, a line each, as they come. Without a GPU a stand-in runs the same at toy sizes.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

try:
    from benchmarks.gpu import conductor, page, travel
    from benchmarks.gpu.card import smi
    from benchmarks.gpu.parts import PARTS, WHOLE_S
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run from the repository root, as python -m benchmarks.gpu") from None
from supernet.errors import Mendable, UsageError
from supernet.runs.device import resolve_device

NAMES = tuple(part.name for part in PARTS)


def _parts(text: str) -> list[str]:
    wanted = text.split(",")
    if unknown := [name for name in wanted if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"must be some of {','.join(NAMES)}, got {unknown[0]!r}")
    return wanted


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 24 * 60:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {24 * 60}, got {text!r}")
    return value


def _numbers(text: str) -> list[int]:
    words = [] if text == "none" else text.split(",")
    if not all(word in set("12345") for word in words):
        raise argparse.ArgumentTypeError(f"must be some of 1,2,3,4,5, or none, got {text!r}")
    return [int(word) for word in words]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   epilog="parts, in order of worth:\n" + "\n".join(f"  {p.name:12} {p.about}" for p in PARTS))
    made.add_argument("--parts", type=_parts, default=list(NAMES), metavar="A,B", help="some of the parts below, in their order")
    made.add_argument("--minutes", type=_minutes, default=WHOLE_S / 60, help="of wall time, for all of it (%(default)g)")
    made.add_argument("--out", type=Path, default=Path("runs/gpu"), help="the folder of results (%(default)s)")
    made.add_argument("--resume", nargs="?", const=True, metavar="FILE",
                      help="leave out what has a verdict in the folder of results, or in the gpu.jsonl of an earlier call")
    made.add_argument("--device", default="auto", help="auto, cuda, cuda:N, or cpu for the stand-in (%(default)s)")
    made.add_argument("--data", type=Path, help="the folder with cifar-10-batches-bin and nb201.csv.gz (.gpu/data where it is there)")
    made.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "supernet_gpu",
                      help="what is kept between parts and calls: compiled kernels, runs (%(default)s)")
    other = made.add_argument_group("instead of that").add_mutually_exclusive_group()
    other.add_argument("--pack", type=_numbers, metavar="1,2",
                       help="fill .gpu/ with what travels: packages, a table, these files of CIFAR-10")
    other.add_argument("--unpack", type=Path, metavar="FOLDER", help="lay what came along into a folder outside the tree, for --data")
    other.add_argument("--page", nargs="?", const=page.RESULTS, type=Path, metavar="FILE",
                       help=f"write {page.PAGE.relative_to(page.ROOT)} from a gpu.jsonl ({page.RESULTS.relative_to(page.ROOT)})")
    made.add_argument("--source", type=Path, default=travel.SHARED, help="of --pack: where cifar-10-batches-bin and nas/nb201.csv.gz lie")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    began, options = time.monotonic(), parser().parse_args(argv)
    try:
        if options.pack is not None:
            pieces = travel.pack(options.pack, options.source)
            print("\n".join(f"{size / 2**20:8.2f} MiB  {name}" for name, size in [*pieces, ("all", sum(size for _, size in pieces))]))
        elif options.unpack is not None:
            print(f"{options.unpack}: {', '.join(travel.unpack(options.unpack))}")
        elif options.page is not None:
            print("written" if page.write(options.page) else "nothing has changed", file=sys.stderr)
        else:
            return measure(options, began)
    except Mendable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(options: argparse.Namespace, began: float) -> int:
    """0 where every part passed or was skipped, 1 where one was not; 130 where it was interrupted."""
    try:
        device = resolve_device(options.device)
    except ValueError as error:
        raise UsageError(f"--device: {error}") from error
    toy = device.type != "cuda"
    earlier = earlier_results(options)
    carried = travel.CARRIED / "data"
    data = options.data or (carried if carried.is_dir() else None)
    if options.data is not None and not options.data.is_dir():
        raise UsageError(f"--data must be a folder, and {options.data} is none")
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    made = conductor.Conductor(options.out.resolve(), options.work.resolve(), str(device), toy, data and data.resolve(), travel.site())
    if earlier is not None and earlier != made.journal.path:
        shutil.copyfile(earlier, made.journal.path)
    with made.journal.held():
        made.journal.append({"kind": "machine", "stand_in": toy, "minutes": options.minutes, **machine(str(device))}, sync=True)
        if toy:
            print("no GPU: a stand-in on the CPU runs every part at toy sizes; its numbers mean nothing", flush=True)
        done = conductor.with_verdict(made.records()) if options.resume else set()
        chosen = [part for part in PARTS if part.name in options.parts]
        try:
            verdicts = conductor.conduct(made, chosen, options.minutes * 60 - (time.monotonic() - began), done,
                                         say=lambda line: print(line, flush=True))
        except KeyboardInterrupt:
            print(f"interrupted: {made.journal.path} has what was done; --resume goes on", file=sys.stderr)
            return 130
        made.journal.append({"kind": "end", "seconds": round(time.monotonic() - began, 1), "smi": smi()}, sync=True)
    print(f"results {options.out / conductor.NAME}")
    return 0 if all(verdict in ("passed", "skipped") for verdict in verdicts.values()) else 1


def earlier_results(options: argparse.Namespace) -> Path | None:
    """The journal that this call goes on with. Raises UsageError: there is none where one was asked for, or one where none was."""
    own = (options.out / conductor.NAME).resolve()
    if options.resume in (None, True):
        if own.exists() and not options.resume:
            raise UsageError(f"{own} has results of an earlier call: pass --resume to go on with them, or another --out")
        return own if own.exists() else None
    path = Path(options.resume)
    if not path.is_file():
        raise UsageError(f"--resume: there is no file {path}")
    if own.exists() and own != path.resolve():
        raise UsageError(f"{own} has results too: pass --resume alone to go on with them, or another --out")
    return path.resolve()


def machine(device: str) -> dict[str, Any]:
    """Where this runs. The device itself is not touched: the parts are alone with it."""
    import torch

    from supernet.runs.environment import describe

    facts = describe(torch.device("cpu")) | travel.commit() | {"device": device, "cuda": torch.version.cuda,
                                                               "cudnn": torch.backends.cudnn.version()}
    for package in ("triton", "hydra-core"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "came along" if package == "hydra-core" and travel.site() else None
    return {"environment": facts, "smi": smi()}


if __name__ == "__main__":
    sys.exit(main())
