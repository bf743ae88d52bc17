"""What `python -m supernet.compress` does: one method after the other, each finished and kept before the next, and then their table."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from supernet.app.compressed import Compressible, compressible, network_digest, trained_by
from supernet.compression.int8 import write_float
from supernet.compression.measuring import (
    BATCHES,
    OnnxNetwork,
    bytes_of,
    grown,
    judged,
    live_bytes_of,
    side_by_side,
    sizes,
)
from supernet.compression.methods import METHODS, ONNX, Settings, Steps, ends, name_of, narrows, read_by, told, trains, with_prefixes
from supernet.compression.networks import AsNetwork, NotPractical, block_of, module_of, refilled, resized
from supernet.compression.results import JOURNAL, Result, digests, free_name, key_of, read_results
from supernet.errors import UsageError
from supernet.exports.comparison import apart
from supernet.exports.examples import CLASSIFY_ONNX, PREPROCESS
from supernet.exports.folder import RECORD, WEIGHTS, beside, earlier_files, move, plain_module, write_plain, write_use
from supernet.exports.formats import FORMATS, missing
from supernet.exports.readers import Images
from supernet.exports.writing import TOLERANCE
from supernet.files import read_text, write_whole
from supernet.genotype import Genotype
from supernet.networks.written import Block
from supernet.report.statistics import Interval, Paired, paired_shares, share_interval
from supernet.runs import dry_run
from supernet.runs.device import usable_cores
from supernet.runs.environment import describe
from supernet.runs.interrupt import Interrupt
from supernet.runs.journal import Journal
from supernet.runs.log import Progress
from supernet.runs.predictions import Predictions
from supernet.runs.run import Interrupted, epoch_line, table
from supernet.training.final import FinalLoop
from supernet.training.records import Totals

PREDICTIONS, ONNX_FILE = "predictions.npz", FORMATS["onnx"].file
MAX_TABLE_BYTES = 50_000_000
CPU = torch.device("cpu")


def prepared(cfg: DictConfig, chosen: Sequence[Steps]) -> "Work":
    """All that is asked for, before anything is made. Raises Mendable errors."""
    work = Work(cfg, chosen)
    settings = Settings(cfg.share, cfg.sparsity, cfg.calibration, cfg.calibrate, cfg.qat_minutes)
    work.made = compressible(cfg, settings, work.recorder)
    return work


class Work:
    """The methods that are asked for, what is known of them, and the folder in which they are kept."""

    made: Compressible

    def __init__(self, cfg: DictConfig, chosen: Sequence[Steps]):
        self.cfg, self.chosen = cfg, with_prefixes(chosen)
        self.output = Path(cfg.output or f"{cfg.run}/compressed")
        if self.output.resolve() == Path(cfg.run).resolve():
            raise UsageError(f"output={self.output} is the run's own folder: name another, or none for {cfg.run}/compressed")
        self.interrupt = Interrupt()
        self.known: dict[str, Result] = {}
        self.finished: list[str] = []

    # -- what is asked for

    @cached_property
    def base(self) -> str:
        """A digest of the network, and of the images that it was trained on and is judged on."""
        return key_of(network_digest(self.made), self.made.read.loaders.split.digest, self.made.read.data.name)

    def key(self, steps: Steps) -> str:
        made = self.made
        further = trained_by(replace(made, distilled=self.distilled(steps))) if trains(steps) else {}
        seeded = {"seed": made.seed} if "int8" in steps else {}
        return key_of(self.base, list(steps), read_by(steps, made.settings), further, seeded)

    def distilled(self, steps: Steps) -> bool:
        return self.cfg.distil and trains(steps)

    def rehearsed(self) -> str:
        """What would be made, what is there already, and what a training would take. Nothing is written."""
        made = self.made
        self.known = read_results(self.output)
        module = module_of(made.block)
        rows = [("network", f"{made.folder.path}, space {made.loaded.space.name}")]
        for steps in self.chosen:
            there = (found := self.known.get(self.key(steps))) is not None and found.failed is None
            rows.append((name_of(steps, made.settings, self.distilled(steps)), "there already" if there else
                         told(steps, made.settings, self.distilled(steps), made.cfg.epochs)))
        made.distilled = self.cfg.distil
        loop = made.loop(module)
        batch = next(iter(loop.train))
        rows += dry_run.report(loop.net, lambda: loop.step(batch), evaluation=loop.evaluate_batch,
                               example=made.read.data.example(made.device), item="image", batch_size=made.cfg.batch_size,
                               steps_per_epoch=len(loop.train), epochs=made.cfg.epochs, device=made.device,
                               remedies=dry_run.smaller(batch_size=made.cfg.batch_size))
        return f"{table(rows)}\n\nmemory and time are those of training the whole network further; nothing was written"

    # -- the work

    def done(self) -> str:
        """Makes what is not there yet. Returns what is said at the end. Raises Interrupted; Mendable errors."""
        from supernet.report.compression import text, write

        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"output={self.output}: cannot make the folder ({error.strerror or error})") from error
        journal = Journal(self.output / JOURNAL)
        try:
            with journal.held(), self.interrupt:
                self.known = read_results(self.output)
                print(f"{self.made.folder.path}: {len(self.made.read.loaders.split.train)} training images, "
                      f"{self.made.test.num_items} of the test; into {self.output}", flush=True)
                for steps in self.chosen:
                    self._make(steps, journal)
                found = self._table()
                paths = write(self.output, found)
        except OSError as error:
            raise UsageError(f"output={self.output}: cannot write there ({error.strerror or error})") from error
        return f"\n{text(found)}\n\nwritten   {', '.join(map(str, paths))}"

    def stopped(self) -> str:
        finished = ", ".join(self.finished) or "nothing new"
        return f"interrupted; finished and kept: {finished}; the same command does the rest"

    def recorder(self, loop: FinalLoop) -> "Told":
        return Told(loop, self.made.cfg.epochs, self.interrupt)

    def _make(self, steps: Steps, journal: Journal) -> None:
        made, key = self.made, self.key(steps)
        made.distilled, made.last = self.distilled(steps), None
        there = self.known.get(key)
        words = told(steps, made.settings, made.distilled, made.cfg.epochs)
        if there is not None and there.failed is None:
            print(f"{there.name}: there already", flush=True)
            self.finished.append(there.name)
            return
        name = free_name(name_of(steps, made.settings, made.distilled), key, self.known.values(), self.output)
        print(f"{name}: {words}", flush=True)
        result = Result(key, name, words, steps, made.distilled, {"network": self.base})
        began = time.perf_counter()
        try:
            result = self._made(result, steps)
        except NotPractical as error:
            result = replace(result, failed=str(error))
            print(f"  not practical: {error}", flush=True)
        result = replace(result, values={**result.values, "seconds": time.perf_counter() - began})
        journal.append(result.record(), sync=True)
        self.known[key] = result
        if result.failed is None:
            self.finished.append(name)
            print(f"  test accuracy {result.values['test_accuracy']:.2f} %, {result.values['disk'] / 1000:.1f} kB", flush=True)
        if self.interrupt.signal is not None:
            raise Interrupted

    def _made(self, result: Result, steps: Steps) -> Result:
        """Makes it in a folder beside, judges it there, and moves it to its place."""
        made, output = self.made, self.output / result.name
        earlier = earlier_files(output)
        module = self._before(steps)
        with beside(output) as part:
            if steps:
                METHODS[steps[-1]].apply(module, made, part / ONNX_FILE)
            if ends(steps):
                shown = {"preprocess.py": PREPROCESS, "classify.py": CLASSIFY_ONNX} if Images().files(made.loaded.preprocess) else {}
                write_use(part, made.loaded, shown)
                net, runs = OnnxNetwork(part / ONNX_FILE), ONNX_FILE
            else:
                self._write_float(part, module, (block_of if narrows(steps) else refilled)(made.block, module))
                net, runs = AsNetwork(module).to(made.device), WEIGHTS
            values = {**result.values, **self._judged(net, part), **sizes(module.cpu(), made.x), **self._sizes(part, runs, module)}
            if made.last is not None:
                values["train"] = {name: value for name, value in made.last.items() if type(value) in (int, float)}
            record = {"source": str(made.folder.path), "made": result.told, "space": made.loaded.space.name,
                      "genotype": made.loaded.genotype.to_json(), "torch": torch.__version__, "key": result.key}
            move(part, output, earlier, record)
        return replace(result, values=values, runs=runs, files={name: digest for name, digest in digests(output).items() if name != RECORD})

    def _before(self, steps: Steps) -> nn.Module:
        """The plain module that the last of the methods is applied to."""
        if not steps[:-1]:
            return module_of(self.made.block)
        before = self.known[self.key(steps[:-1])]
        if before.failed is not None:
            raise NotPractical(f"{before.name} is not")
        return self._again(before)

    def _again(self, result: Result) -> nn.Module:
        """The plain module of a result: the network's, with the tensors of the file."""
        try:
            state = torch.load(self.output / result.name / WEIGHTS, weights_only=True, map_location="cpu")
            module = module_of(self.made.block)
            if narrows(tuple(result.steps)):
                resized(module, state)
            else:
                module.load_state_dict(state)
            return module.to(memory_format=torch.channels_last).eval()
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"{self.output / result.name / WEIGHTS}: is not of this network ({' '.join(str(error).split())[:150]}): "
                             "remove the folder, and it is made again") from error

    def _write_float(self, part: Path, module: nn.Module, block: Block) -> None:
        """The plain file, held against the module; and ONNX where its packages are."""
        made = self.made
        write_plain(part, block, made.loaded, Images())
        few = made.x.double()
        with torch.no_grad():
            far = apart((module.double()(few),), (plain_module(part, torch.float64)(few),)).of
        module.float()
        if not far <= TOLERANCE:
            raise NotPractical(f"the written network is {far:.1e} of the largest logit away from what was trained")
        if not missing(ONNX):
            write_float(module, made.x, part / ONNX_FILE)

    def _judged(self, net: nn.Module, part: Path) -> dict[str, float]:
        """Its metrics on what was held out, and on the test, whose predictions are kept."""
        made, values = self.made, {}
        for name, batches in made.parts().items():
            found, predictions = judged(net, made.read.task, batches, batches.num_items, made.loaded.class_names)
            values |= {f"{name}_{key}": value for key, value in found.items()}
            if name == "test":
                write_whole(part / PREDICTIONS, predictions.as_bytes())
        return values

    def _sizes(self, part: Path, runs: str, module: nn.Module) -> dict[str, Any]:
        """Of its files, and in memory."""
        disk, packed = bytes_of(part / runs)
        x = self.made.batch(BATCHES[-1])
        found = {"disk": disk, "packed": packed, "live": live_bytes_of(module, x) if runs == WEIGHTS else None, "grown": None}
        if (part / ONNX_FILE).exists():
            found |= {"onnx_disk": (part / ONNX_FILE).stat().st_size, "grown": grown(part / ONNX_FILE, x.shape)}
        return found

    # -- the table

    def _table(self) -> Any:
        from supernet.report.compression import Compression

        results = [r for r in self.known.values() if r.values.get("network") == self.base]
        order = {self.key(steps): n for n, steps in enumerate(self.chosen)}
        whole = sorted((r for r in results if r.failed is None or r.key in order), key=lambda r: order.get(r.key, -0.5 if r.steps else -1))
        measured, times, load = self._times([r for r in whole if r.failed is None])
        first = next(r for r in whole if not r.steps)
        reference = Predictions.load(self.output / first.name / PREDICTIONS)
        rows = [self._row(r, reference, times.get(r.key, {})) for r in [first, *(r for r in whole if r is not first)]]
        made = self.made
        about = {"run": str(made.folder.path), "space": made.loaded.space.name, "genotype": made.loaded.genotype.digest,
                 "data": made.read.data.name, "split": made.read.loaders.split.digest, "network": self.base,
                 "epochs": made.cfg.epochs, "lr": made.cfg.w_optimizer.lr, "seed": made.seed,
                 "distillation": None if made.teacher is None else trained_by(replace(made, distilled=True)),
                 "measured_on": measured, "load": load, "times": times}
        cores = usable_cores()
        busy = f" There was other work (a load of {load:.0f} on {cores} cores), which lengthens them." if load > cores + 1 else ""
        how = {"processor": "of one thread's processor time", "wall": f"of wall time with {measured['threads']} threads"}[measured["clock"]]
        said = f"Times are medians {how}, warm, on {measured['cpu']}, all in turn; kB are thousands of bytes.{busy}"
        title = f"{made.read.data.name}, {made.loaded.space.name} {made.loaded.genotype.digest}: made smaller"
        return Compression(title, rows, made.test.num_items, BATCHES, said, about)

    def _row(self, result: Result, reference: Predictions, times: Mapping[str, Mapping[str, float]]) -> Any:
        from supernet.report.compression import Row

        if result.failed is not None:
            return Row(result.name, result.told, failed=result.failed)
        values, predictions = result.values, Predictions.load(self.output / result.name / PREDICTIONS)
        right, before = predictions.predicted == predictions.true, reference.predicted == reference.true
        n = len(right)
        change: Paired = paired_shares(int((right & ~before).sum()), int((before & ~right).sum()), n)
        interval: Interval = share_interval(int(right.sum()), n)
        of = name_of(tuple(result.steps[:-1]), self.made.settings, result.distilled) if ends(tuple(result.steps)) else None
        ms = {engine: {int(batch): t for batch, t in found.items()} for engine, found in times.items()}
        return Row(result.name, result.told, of, values["test_accuracy"], interval, change, values.get("test_top5_accuracy"),
                   values.get("val_accuracy"), values["parameters"], values["nonzero"], values["multiply_adds"], values["disk"],
                   values["packed"], ms.get("torch"), ms.get("onnx"), values.get("live"), values.get("grown"), values["seconds"])

    def _times(self, results: Sequence[Result]) -> tuple[dict[str, Any], dict[str, Any], float]:
        """On what machine, by key and engine the time of each at each batch size, and the machine's load meanwhile: all measured together,
        or read back where nothing is new."""
        machine = describe(CPU)
        here = {"cpu": machine["cpu"], "threads": torch.get_num_threads(), "torch": machine["torch"], "onnx": not missing(ONNX),
                "clock": "processor" if torch.get_num_threads() == 1 else "wall"}  # other work does not lengthen the first much
        try:
            known = json.loads(read_text(self.output / "compression.json", MAX_TABLE_BYTES))
            if known["measured_on"] == here and known["times"].keys() == {r.key for r in results}:
                return here, known["times"], float(known["load"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # there is none, or none of ours: it is written anew
        print("measuring times", flush=True)
        images = {batch: self.made.batch(batch) for batch in BATCHES}
        rows = {batch: (x.contiguous(),) for batch, x in images.items()}
        calls: dict[tuple[str, str, int], Callable[[], object]] = {}
        for result in results:
            if result.runs == WEIGHTS:
                module = self._again(result)
                calls |= {(result.key, "torch", batch): partial(module, x) for batch, x in images.items()}
            if here["onnx"] and ONNX_FILE in result.files:
                call = FORMATS["onnx"].read(self.output / result.name / ONNX_FILE, here["threads"])
                calls |= {(result.key, "onnx", batch): partial(call, row) for batch, row in rows.items()}
        times: dict[str, Any] = {result.key: {} for result in results}
        clock = {"processor": time.thread_time, "wall": time.perf_counter}[here["clock"]]
        for (key, engine, batch), ms in side_by_side(calls, clock=clock).items():
            times[key].setdefault(engine, {})[str(batch)] = ms
        return here, times, os.getloadavg()[0]


class Told:
    """Says what a training further comes to, epoch by epoch; an interrupt ends it."""

    def __init__(self, loop: FinalLoop, epochs: int, interrupt: Interrupt):
        self.loop, self.epochs, self.interrupt = loop, epochs, interrupt
        self.progress = Progress(epochs * len(loop.train), len(loop.train))

    def step(self, items: int, totals: Totals) -> None:
        def fields() -> dict[str, float]:
            means = totals.means()
            return {"loss": means["loss"], "acc %": means["accuracy"]}

        self.progress.update(self.loop.position.step, fields, items)
        self.working()

    def line(self, text: str) -> None:
        self.progress.line(text)

    def working(self, done: int = 0, total: int = 0, item: str = "") -> None:
        if self.interrupt.signal is not None:
            self.progress.close()
            raise Interrupted

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        self.line(f"  {epoch_line(record, self.epochs)}")
        if self.epochs == record["epoch"] + 1:
            self.progress.close()
        self.working()
