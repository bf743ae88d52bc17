"""What `python -m supernet.deploy` does: for each set of limits the best sub-network that keeps them, made a network of its own."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ops.forms import NoPlainForm
from supernet.app.compressed import Noted
from supernet.app.deployable import Deployable, deployable
from supernet.commands.compressing import Told
from supernet.compression.results import key_of
from supernet.costs.latency_table import load_latency_table
from supernet.deployment.known import Known
from supernet.deployment.limits import Bound, Quantity, chain_cost, name_of, none_within, read_limits, spread, within
from supernet.deployment.measuring import Here
from supernet.deployment.methods import Evolution, Exact, Gradient, Method, Problem
from supernet.deployment.models import Modelled, fitted, sampled
from supernet.deployment.results import GENOTYPE, PLAIN, WEIGHTS, free_name, read_result, seal
from supernet.errors import UsageError
from supernet.exports.comparison import apart
from supernet.exports.folder import beside, plain_module, write_plain
from supernet.exports.formats import need
from supernet.exports.readers import reader_of
from supernet.exports.writing import TOLERANCE, as_tuple
from supernet.genotype import Genotype
from supernet.interfaces import InterfaceError, check_interface
from supernet.networks.written import WritesItself
from supernet.passes import extremes
from supernet.report.statistics import share_interval
from supernet.runs.interrupt import Interrupt
from supernet.runs.log import Progress
from supernet.runs.run import Interrupted, table
from supernet.runs.weights import save_weights
from supernet.tables.files import read_table
from supernet.training.evaluate import evaluate
from supernet.training.final import fit_final

MEASURED = ("peak_memory", "latency_ms")
UNITS = {"peak_memory": "bytes", "latency_ms": "ms"}
COMPARED = 4  # inputs of noise on which the plain file is held against the network


def prepared(cfg: DictConfig) -> "Work":
    """All that is asked for, before anything is evaluated. Raises Mendable errors."""
    columns = {} if cfg.columns is None else OmegaConf.to_container(cfg.columns)
    known = ["multiply_adds", "parameters", *MEASURED, *columns]
    given = OmegaConf.to_container(cfg.limits) if OmegaConf.is_config(cfg.limits) else cfg.limits
    limits, swept = read_limits(given, known)
    if cfg.by == "exact":
        need("by=exact", ["scipy"], "exact")
    work = Work(cfg, deployable(cfg), limits, swept, columns)
    work.check()
    return work


@dataclass(frozen=True)
class Target:
    """A result that is asked for. key: a digest of all that it depends on."""

    name: str
    limits: Mapping[str, float]
    key: str


class Work:
    """The limits that are asked for, what is known of architectures, and the folder in which it is kept."""

    def __init__(self, cfg: DictConfig, made: Deployable, limits: Mapping[str, float], swept: str | None, columns: Mapping[str, str]):
        self.cfg, self.made, self.limits, self.swept, self.columns = cfg, made, limits, swept, columns
        self.space = made.space
        self.output = Path(cfg.output or f"{cfg.run}/deployed")
        if self.output.resolve() == Path(cfg.run).resolve():
            raise UsageError(f"output={self.output} is the run's own folder: name another, or none for {cfg.run}/deployed")
        self.interrupt, self.known, self.finished = Interrupt(), Known(self.output, made.space), []
        self.here = Here(made.on_cpu, made.input(cfg.latency_batch))
        self._quantities: dict[str, Quantity] = {}
        self.progress: Progress | None = None
        self.evaluations = 0

    # -- quantities

    def check(self) -> None:
        """Raises UsageError: a limit on what is counted that no architecture keeps."""
        if self.cfg.device_table is not None:
            for name in self.columns:
                self.quantity(name)
        if self.cfg.measure != "here":
            self.quantity("latency_ms")
        counted = {name: limit for name, limit in self.limits.items() if not self.is_measured(name)}
        self._check_reachable(counted)

    def is_measured(self, name: str) -> bool:
        return name == "peak_memory" or name == "latency_ms" and self.cfg.measure == "here"

    def quantity(self, name: str) -> Quantity:
        if name not in self._quantities:
            self._quantities[name] = self._quantity(name)
        return self._quantities[name]

    def _quantity(self, name: str) -> Quantity:
        made = self.made
        if name in made.costs:
            cost = made.costs[name]
            return Quantity(name, cost.unit, cost, cost, True)
        if name in self.columns:
            return self._column(name)
        if not self.is_measured(name):
            cost = chain_cost(load_latency_table(Path(self.cfg.measure), made.loaded.space))
            return Quantity(name, cost.unit, lambda g: cost(made.widened(g)), cost, True)
        genotypes = [*made.extremes, *sampled(self.space, self.cfg.measured, self.cfg.seed, "measured")]
        missing = sum(not self.known.has(self._of(name), g) for g in genotypes)
        if missing:
            self.told(f"{name}: {missing} architectures are measured, for a model of all others")

        def working(done: int, total: int) -> None:
            if missing:
                self._at_work(done, total, "measured architecture")

        model = Modelled(self.space, genotypes, partial(self._measured, name), list(made.costs.values()), name=name, unit=UNITS[name],
                         working=working)
        self._close()
        return model.quantity

    def _column(self, name: str) -> Quantity:
        """A row's own value where the table has the architecture, else that of a model of all rows."""
        rows = read_table(Path(self.cfg.device_table), self.made.loaded.space)
        values = rows.column(self.columns[name])
        if self.space is not self.made.loaded.space:
            raise UsageError(f"columns={name}: a search that leaves ops out has no table")
        there = {self.space.canonical(self.space.parse(text)): float(v) for text, v in zip(rows.texts, values) if v == v}
        if not there:
            raise UsageError(f"columns={name}: {self.cfg.device_table} has no value in {self.columns[name]}")
        model = fitted(self.space, list(there), list(there.values()), list(self.made.costs.values()), name=name, unit="")
        return Quantity(name, "", lambda g: there.get(self.space.canonical(g), model.cost(g)), model.cost, False, model.error)

    def _of(self, name: str) -> str:
        """A digest of all that a value depends on beside the architecture."""
        made, cfg = self.made, self.cfg
        sizes = {key: str(value) for key, value in made.supernet.built.sizes.items()}
        if name == "score":
            return key_of("score", made.digest, made.read.loaders.split.digest, cfg.max_val, cfg.calibration_batches, cfg.seed)
        machine = self.here.machine
        return key_of(name, self.space.fingerprint, sizes, machine if name == "latency_ms" else [machine["shape"], machine["torch"]])

    def _measured(self, name: str, genotype: Genotype) -> float:
        measure = {"latency_ms": self.here.latency_ms, "peak_memory": self.here.peak_memory}[name]

        def find(same: Genotype) -> dict[str, float]:
            self.working()
            return {name: measure(same)}

        return self.known(self._of(name), genotype, find)[name]

    def _check_reachable(self, limits: Mapping[str, float]) -> None:
        """Raises UsageError: what no architecture keeps, with the least of each quantity."""
        if not limits:
            return
        least = {name: self.least(name) for name in limits}
        broken = [name for name, limit in limits.items() if limit < least[name]]
        if broken:
            said = ", ".join(f"{name} {least[name]:,.6g} (limit {limit:,.6g})" for name, limit in limits.items())
            raise UsageError(f"no architecture of {self.space.name} keeps limits.{broken[0]}; the least of each: {said}")
        bounds = [Bound(self.quantity(name), limit) for name, limit in limits.items()]
        if within(self.space, bounds) is None:
            raise UsageError(none_within(self.space, bounds))

    def least(self, name: str) -> float:
        """Of one quantity alone. Of what is measured: the architecture of least multiply-adds, or that of the model's least where it is
        below."""
        quantity = self.quantity(name)
        return min(quantity.of(self.made.extremes[0]), quantity.of(extremes(self.space, quantity.plan)[0]))

    def most(self, name: str) -> float:
        """As `least`."""
        quantity = self.quantity(name)
        return max(quantity.of(self.made.extremes[1]), quantity.of(extremes(self.space, quantity.plan)[1]))

    # -- scores

    def metrics(self, genotype: Genotype) -> Mapping[str, float]:
        def find(same: Genotype) -> Mapping[str, float]:
            self.working()
            self.evaluations += 1
            self._at_work(self.evaluations, self.expected, "architecture")
            return self.made.shared(same)

        return self.known(self._of("score"), genotype, find)

    def score(self, genotype: Genotype) -> float:
        value = self.metrics(genotype)[self.cfg.score]
        return value if self.cfg.score == "accuracy" else -value

    @cached_property
    def samples(self) -> list[Genotype]:
        """Architectures by which all limits are begun with."""
        return [*self.made.extremes, *sampled(self.space, self.cfg.samples, self.cfg.seed, "sampled")][: self.cfg.samples]

    @property
    def expected(self) -> int:
        """Evaluations at most."""
        once, each = self._budget
        return max(self.evaluations, once + each * (self.cfg.points if self.swept else 1))

    @property
    def _budget(self) -> tuple[int, int]:
        """Evaluations for all limits together, and for each."""
        each = {"evolution": self.cfg.trials, "exact": self.cfg.candidates, "gradient": 1}[self.cfg.by]
        return (0 if self.cfg.by == "gradient" else self.cfg.samples), each

    # -- the work

    def done(self) -> str:
        """Makes what is not there yet. Returns what is said at the end. Raises Interrupted; Mendable errors."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"output={self.output}: cannot make the folder ({error.strerror or error})") from error
        try:
            with self.interrupt, self.known.journal.held():
                self._check_reachable(self.limits)
                results = [self._result(target) for target in self.targets()]
                written = self._front(results) if self.swept else [self.output / r["name"] for r in results]
        except OSError as error:
            raise UsageError(f"output={self.output}: cannot write there ({error.strerror or error})") from error
        finally:
            self._close()
        from supernet.report.deployment import text

        return f"\n{text(results)}\n\nwritten   {', '.join(map(str, written))}"

    def targets(self) -> list[Target]:
        if self.swept is None:
            return [self._target(dict(self.limits), self.cfg.name)]
        low, high, name = self.least(self.swept), self.most(self.swept), self.cfg.name
        return [self._target({**self.limits, self.swept: limit}, None if name is None else f"{name}_{n}")
                for n, limit in enumerate(spread(low, high, self.cfg.points), 1)]

    def _target(self, limits: dict[str, float], name: str | None) -> Target:
        cfg, made = self.cfg, self.made
        own = {"evolution": [cfg.samples, cfg.trials], "gradient": [cfg.gradient_steps],
               "exact": [cfg.samples, cfg.candidates]}[cfg.by]
        further = [] if not cfg.epochs else [cfg.epochs, cfg.lr, cfg.distil, dict(cfg.distillation)]
        key = key_of(made.digest, made.read.loaders.split.digest, limits, cfg.by, own, cfg.score, cfg.max_val, cfg.calibration_batches,
                     cfg.seed, cfg.measure, dict(self.columns), cfg.latency_batch, further)
        return Target(free_name(self.output, name or name_of(limits), key), limits, key)

    def _result(self, target: Target) -> dict[str, Any]:
        there = read_result(self.output / target.name)
        if there is not None and there["key"] == target.key:
            self.told(f"{target.name}: there already")
        else:
            self.told(f"{target.name}: by {self.cfg.by}")
            self._make(target)
            there = read_result(self.output / target.name)
        self.finished.append(target.name)
        return there

    def _make(self, target: Target) -> None:
        began = time.perf_counter()
        bounds = [Bound(self.quantity(name), limit) for name, limit in target.limits.items()]
        rejected: list[dict[str, Any]] = []

        def holds(genotype: Genotype) -> bool:
            for bound in bounds:
                if not bound.holds(genotype):
                    rejected.append({"architecture": self.space.text(genotype), bound.quantity.name: bound.quantity.of(genotype)})
                    return False
            return True

        problem = Problem(self.space, bounds, self.score, self.samples, holds, self.cfg.seed, self.working, self.told,
                          lambda: [genotype for genotype, _ in self.known.all(self._of("score"))])
        chosen = next((g for g in self.method()(problem) if holds(g)), None)
        self._close()
        if chosen is None:
            names = [bound.quantity.name for bound in bounds if any(bound.quantity.name in r for r in rejected)]
            least = ", ".join(f"{name} {min(r[name] for r in rejected if name in r):,.6g} at least" for name in names)
            raise UsageError(f"{target.name}: none of the {len(rejected)} architectures that were found keeps what is measured ({least}): "
                             "raise that limit, or try by another method")
        found = {"by": self.cfg.by, "rejected": rejected, **problem.facts}
        self._keep(target, chosen, bounds, found, began)

    def method(self) -> Method:
        cfg, made = self.cfg, self.made
        if cfg.by == "exact":
            return Exact(cfg.candidates)
        if cfg.by == "evolution":
            return Evolution(cfg.trials)
        return Gradient(made.supernet, made.read.task, made.alpha_batches, cfg.gradient_steps)

    def _keep(self, target: Target, genotype: Genotype, bounds: Sequence[Bound], found: Mapping[str, Any], began: float) -> None:
        made, whole = self.made, self.made.widened(genotype)
        net = made.network(genotype)
        values = {"validation": self._judged(net, made.val), "shared_weights": dict(self.metrics(genotype))}
        trained = self._trained_further(net) if self.cfg.epochs else {}
        values |= {"test": self._judged(net, made.test)}
        count = getattr(made.test, "num_items", None)
        if count and not made.read.task.streams:
            low, high = share_interval(round(values["test"]["accuracy"] * count / 100), count)
            values["test"] |= {"accuracy_low": 100 * low, "accuracy_high": 100 * high, "items": count}
        costs = {name: cost(genotype) for name, cost in made.costs.items()}
        costs |= {bound.quantity.name: bound.quantity.of(genotype) for bound in bounds}
        costs |= {name: self._measured(name, genotype) for name in MEASURED if name not in costs}
        net.cpu()
        which = f"those that it has in the supernet of {made.folder.path.name}, statistics of norms its own" + (
            f"; then trained further for {self.cfg.epochs} epochs" if self.cfg.epochs else "")
        with beside(self.output / target.name) as part:
            folder = part / target.name
            folder.mkdir()
            whole.save(folder / GENOTYPE)
            save_weights(folder / WEIGHTS, net, made.read.data, whole, made.folder.known_status().get("config_hash", ""), which=which)
            plain = self._write_plain(folder / PLAIN, net)
            again = self.here.latency_ms(genotype)
            record = {"key": target.key, "name": target.name, "run": str(made.folder.path), "space": self.space.name,
                      "genotype": whole.digest, "architecture": made.loaded.space.text(whole),
                      "asked": {"limits": dict(target.limits), "measure": self.cfg.measure, "score": self.cfg.score, "seed": self.cfg.seed},
                      "found": dict(found), **values, "trained_further": trained, "costs": costs, "latency_again_ms": again,
                      "measured_on": self.here.machine, "model_errors": {b.quantity.name: b.quantity.error for b in bounds
                                                                         if not b.quantity.counted},
                      "plain": plain, "seconds": time.perf_counter() - began}
            seal(folder, self.output / target.name, record)
        said = ", ".join(f"{name} {value:,.6g}" for name, value in costs.items())
        self.told(f"  validation {values['validation']['accuracy']:.2f} %, test {values['test']['accuracy']:.2f} %; {said}"
                  + (f"; {len(found['rejected'])} that were measured beyond a limit were passed over" if found["rejected"] else ""))

    def _judged(self, net: nn.Module, batches: Any) -> dict[str, float]:
        return evaluate(net, self.made.read.task, batches, lambda: None, self.made.generator())

    def _trained_further(self, net: nn.Module) -> dict[str, Any]:
        """Trains it in place, as final trainings do; returns the last epoch's record."""
        made, cfg = self.made, self.cfg
        own = made.final_options({"epochs": cfg.epochs, "drop_path_prob": 0.0, "backend": "plain", "compile": "none"}).copy()
        OmegaConf.set_struct(own, False)
        own.w_optimizer.lr = own.w_optimizer.lr / 10 if cfg.lr is None else cfg.lr
        own.distillation, own.seed = cfg.distillation, cfg.seed
        loop = made.fine_tuning(net, own, cfg.distil)
        noted = Noted(Told(loop, cfg.epochs, self.interrupt), len(loop.train) * cfg.epochs, budget_s=None)
        fit_final(loop, cfg.epochs, noted)
        with loop.evaluated():
            kept = {name: value.detach().clone() for name, value in net.state_dict().items()}
        net.load_state_dict(kept)
        net.eval()
        return {name: value for name, value in (noted.last or {}).items() if type(value) in (int, float)}

    def _write_plain(self, folder: Path, net: nn.Module) -> str:
        """The plain network, held against `net` in double precision. Returns in words how far it is, or why there is none."""
        try:
            check_interface(net, WritesItself, "the network")
            block = net.plain()
            reader = reader_of(block)
        except (NoPlainForm, InterfaceError) as error:
            return f"none: {error}"
        folder.mkdir()
        write_plain(folder, block, self.made.loaded, reader)
        few = reader.noise(net, self.made.loaded.preprocess, COMPARED, COMPARED, torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours, theirs = reader.ours(net.double(), few), plain_module(folder, torch.float64)(*few)
        net.float()
        far = apart(as_tuple(ours), as_tuple(theirs)).of
        if not far <= TOLERANCE:
            raise UsageError(f"the plain network does not compute the same: {far:.1e} of the largest logit away in float64")
        return f"{far:.1e} of the largest logit away in float64"

    def _front(self, results: Sequence[Mapping[str, Any]]) -> list[Path]:
        from supernet.report.deployment import Front, write

        quantity = self.quantity(self.swept)
        value = quantity.plan if not quantity.counted else quantity.of
        cloud = [(value(g), found[self.cfg.score]) for g, found in self.known.all(self._of("score"))]
        made, score = self.made, self.cfg.score
        title = f"{made.read.data.name}, {self.space.name}: sub-networks by {self.swept}"
        about = {"run": str(made.folder.path), "space": self.space.name, "by": self.cfg.by, "split": made.read.loaders.split.digest,
                 "supernet": made.digest[:16]}
        stem, better = f"front_{self.cfg.name or self.swept}", {"accuracy": 1, "loss": -1}[score]
        return write(self.output, Front(title, stem, self.swept, cloud, results, score, better, about))

    # -- words

    def rehearsed(self) -> str:
        """What would be made of what, and what it would take. Nothing is written."""
        made = self.made
        small, large = made.extremes
        rows = [("supernet", f"{made.folder.path}, space {self.space.name}, {self.space.count():,} architectures"),
                ("images", f"{made.val.num_items if not made.read.task.streams else 'all'} of the validation part, "
                           f"{len(made.calibration)} training batches for statistics")]
        for name, of in {**made.costs, "peak_memory": self.here.peak_memory, "latency_ms": self.here.latency_ms}.items():
            asked = f", limit {self.limits[name]:,.6g}" if name in self.limits else ""
            rows.append((name, f"{of(small):,.6g} to {of(large):,.6g}{asked}"))
        began = time.perf_counter()
        made.shared(small), made.shared(large)
        each = (time.perf_counter() - began) / 2
        known = sum(1 for _ in self.known.all(self._of("score")))
        once, per_limit = self._budget
        rows += [("evaluations", f"{once} for all limits, {per_limit} for each, at {each:.2f} s; {known} are known"),
                 ("into", str(self.output))]
        return f"{table(rows)}\n\nnothing was written"

    def stopped(self) -> str:
        self._close()
        finished = ", ".join(self.finished) or "nothing new"
        return f"interrupted; finished: {finished}; what was evaluated is kept, and the same command goes on"

    def working(self) -> None:
        if self.interrupt.signal is not None:
            raise Interrupted

    def told(self, line: str) -> None:
        if self.progress is not None:
            self.progress.line(line)
        else:
            print(line, flush=True)

    def _at_work(self, done: int, total: int, item: str) -> None:
        self.working()
        self.progress = self.progress or Progress(1, 1)
        self.progress.working(done, total, item)

    def _close(self) -> None:
        if self.progress is not None:
            self.progress.close()
            self.progress = None
