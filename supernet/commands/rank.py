"""`python -m supernet.rank`: how well shared weights, or zero-cost proxies, order architectures that were trained alone.

The truth is the test accuracy of a table: this is a report, nothing is selected by it.
"""

import contextlib
import csv
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, shows_errors
from supernet.app.options import CONF, choices, overrides, plain
from supernet.app.signatures import check_nested
from supernet.app.trust import check_targets
from supernet.commands.drawn import drawn, drawn_rows
from supernet.errors import UsageError, did_you_mean
from supernet.runs.interrupt import Interrupt
from supernet.runs.progress import Counted

if TYPE_CHECKING:
    import numpy as np

    from supernet.app.compose import SearchParts
    from supernet.evaluators.proxies import Proxy
    from supernet.genotype import Genotype
    from supernet.tables.table import Table

TOP = (5, 10, 20)  # percent
AXES = {"shared_weights": "with shared weights (%)"}  # names on an axis, where that of the estimate would not say the unit
# the numbers of architectures among these, and what they come to, as they are done, until `stop()`; higher is meant to be better
Evaluate = Callable[[Sequence["Genotype"], Callable[[], bool]], Iterable[tuple[int, float]]]


@dataclass
class Ranking:
    """What one way to estimate says of the drawn architectures, by their numbers; of some where it was interrupted."""

    by: str
    state: str = ""  # of the supernet: the name of its checkpoint
    step: int | None = None  # of the search, at that checkpoint
    estimates: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.by} {self.state}".strip()

    def scores(self, truth: "np.ndarray", rng: "np.random.Generator", resamples: int) -> dict[str, Any]:
        """Over the architectures whose estimate and truth are finite; NaN where fewer than 3 are."""
        import numpy as np

        from supernet.report.statistics import kendall, kendall_interval, precision_at, spearman

        estimate, truth = self.beside(truth)
        finite = np.isfinite(estimate) & np.isfinite(truth)
        a, b = estimate[finite], truth[finite]
        found = dict.fromkeys(["kendall_tau", "kendall_low", "kendall_high", "spearman", *(f"precision_at_{p}" for p in TOP)], float("nan"))
        if len(a) >= 3:
            low, high = kendall_interval(a, b, rng, resamples=resamples)
            found = {"kendall_tau": kendall(a, b), "kendall_low": low, "kendall_high": high, "spearman": spearman(a, b),
                     **{f"precision_at_{p}": precision_at(a, b, p) for p in TOP}}
        return {"architectures": len(a), "evaluated": len(estimate), **found, "step": self.step, "seconds": round(self.seconds, 3)}

    def beside(self, truth: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
        """The estimates, and the truths of the same architectures."""
        import numpy as np

        numbers = sorted(self.estimates)
        return np.array([self.estimates[n] for n in numbers]), truth[numbers]


Scored = list[tuple[Ranking, dict[str, Any]]]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="rank")
@shows_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, "rank")
    import numpy as np

    from supernet.app import compose
    from supernet.app.build import build

    with composing():
        proxies = chosen_proxies(cfg)
        options, checkpoints = search_of(cfg)
        parts = compose.search_parts(options)
        table = build(cfg.table)(parts.space)
        if table is None:
            raise UsageError(f"no table for space {parts.space.name}: pass table.path=FILE, or put it under "
                             f"{cfg.table.get('folder', 'data/tables')}")
        of = cfg.truth or (options.dataset.name if options.dataset.name in table.datasets else next(iter(table.datasets), "none"))
        column = table.dataset(of).test
    genotypes = to_rank(parts, table, options, cfg.n, random.Random(cfg.seed))
    truth = np.array([table.value(g, column, missing="nan") for g in genotypes])
    output = made(Path(cfg.output or cfg.run or "rank"))
    title = f"{len(genotypes)} of {parts.space.count():,} architectures of {parts.space.name} against {column} of {table.source}"
    print(title, flush=True)

    scored: Scored = []
    with Interrupt() as interrupt:
        for ranking, evaluate in rankings(cfg, options, parts, checkpoints, proxies):
            estimate(ranking, evaluate, genotypes, lambda: interrupt.signal is not None)
            if ranking.estimates:
                scored.append((ranking, ranking.scores(truth, np.random.default_rng(cfg.seed), cfg.resamples)))
                print(line(*scored[-1]), flush=True)
            if interrupt.signal is not None:
                break
        if scored:
            about = {"table": table.source, "truth": column, "space": parts.space.name, "run": cfg.run, "seed": cfg.seed,
                     "statistics": cfg.statistics, "calibration_batches": cfg.calibration_batches,
                     "images": parts.loaders.val_eval.num_items, "proxy_batch": cfg.proxy_batch}
            try:
                write(output, scored, [parts.space.text(g) for g in genotypes], truth, about, title)
            except OSError as error:
                raise UsageError(f"{output}: cannot write the ranking ({error.strerror or error})") from error
            print(f"written   {output / 'rank.html'}, rank.json, rank.csv, scatter.png")
    if interrupt.signal is not None:
        print("interrupted; " + ("what was there is written" if scored else "nothing was evaluated yet"), file=sys.stderr)
        sys.exit(interrupt.exit_code)


def search_of(cfg: DictConfig) -> tuple[DictConfig, list[Path]]:
    """The options that make the supernet, and its checkpoints, oldest first. Raises UsageError."""
    from supernet.runs import checkpoint
    from supernet.runs.folder import RunFolder

    if (cfg.run is None) == (not cfg.options):
        raise UsageError("rank needs the folder of a search, run=FOLDER, or 'options={space:...,dataset:...}', one of both")
    found: list[Path] = []
    if cfg.run is None:
        if "shared_weights" in cfg.by:
            raise UsageError("by=shared_weights needs a trained supernet: pass run=FOLDER, or rank by zero-cost proxies")
        options = hydra.compose("search", overrides=overrides(plain(cfg)["options"]))
        validate(options, "train_search")
    else:
        folder = RunFolder(Path(cfg.run))
        if folder.known_status().get("script") != "train_search" or not folder.config.exists():
            raise UsageError(f"run={cfg.run}: expected the folder of a search, with run.json and config.yaml")
        folder.check_format()
        found_options = folder.options()
        if not {"space", "dataset", "split", "compat", "seed"} <= set(found_options):
            raise UsageError(f"{folder.config}: expected the options of a search")
        check_targets(found_options, folder.config, cfg.trust)
        options = OmegaConf.create(found_options)
        found = checkpoint.all_files(folder.checkpoints)
        if not found and "shared_weights" in cfg.by:
            raise UsageError(f"run={cfg.run}: that search has no checkpoint")
    options.table, options.compile, options.graph_augmentation = None, "none", False  # the command has its own table, and takes no steps
    options.device, options.threads = cfg.device, cfg.threads
    if cfg.max_val is not None:
        options.split.max_val = min(cfg.max_val, options.split.max_val or cfg.max_val)
    return options, found


def to_rank(parts: "SearchParts", table: "Table", options: DictConfig, n: int, rng: random.Random) -> list["Genotype"]:
    """`n` architectures of what was searched that the table knows: where it has a sample of the space, they are drawn among its rows."""
    from supernet.training.stages import widen_genotype

    if len(table) < parts.space.count():
        excluded = set(options.get("exclude_ops") or ())
        return drawn_rows(table, n, rng, lambda genotype: not any(e.op in excluded for _, kept in genotype.cells for e in kept))
    return [widen_genotype(parts.space, genotype) for genotype in drawn(parts.searched, n, rng)]


def chosen_proxies(cfg: DictConfig) -> "dict[str, Proxy]":
    """The proxies that `by` lists, by name: those of `proxy`, the others as their yaml describes them. Raises UsageError."""
    from supernet.app.build import build

    known = ["shared_weights", *sorted({*choices("proxy"), *cfg.proxy})]
    unknown = [name for name in cfg.by if name not in known]
    if unknown or not cfg.by:
        raise UsageError(f"by must list some of {', '.join(known)}, got {list(cfg.by)}{did_you_mean(''.join(unknown[:1]), known)}")
    idle = [name for name in cfg.proxy if name not in cfg.by]
    if idle:
        raise UsageError(f"proxy={list(cfg.proxy)} chooses {idle[0]}, which by={list(cfg.by)} does not list: pass by=[{idle[0]}]")

    def node(name: str) -> DictConfig:
        found = cfg if name in cfg.proxy else hydra.compose("rank", overrides=[f"proxy=[{name}]"])
        check_nested(found)
        if name not in found.proxy:
            raise UsageError(f"proxy/{name}.yaml must have its lines under the name {name}, got {', '.join(map(str, found.proxy))}")
        return found.proxy[name]

    return {name: build(node(name)) for name in cfg.by if name != "shared_weights"}


def rankings(cfg: DictConfig, options: DictConfig, parts: "SearchParts", checkpoints: Sequence[Path],
             chosen: "Mapping[str, Proxy]") -> Iterator[tuple[Ranking, Evaluate]]:
    """One ranking after the other, still empty, and what estimates its architectures. Raises UsageError, before the first where
    that is possible."""
    proxies = proxies_of(cfg, options, parts, chosen)
    shared = shared_of(cfg, parts) if "shared_weights" in cfg.by else None
    for name in cfg.by:
        if name != "shared_weights":
            yield Ranking(name), proxies[name]
            continue
        for state, step in loaded(parts.net, checkpoints, every=cfg.checkpoints == "all"):
            yield Ranking(name, state, step), shared


def loaded(net: Any, checkpoints: Sequence[Path], *, every: bool) -> Iterator[tuple[str, int]]:
    """Name and step of the newest checkpoint that is whole, or of every one from the oldest on; meanwhile `net` has its weights. One that
    is damaged is passed over, and said so. Raises UsageError: none is whole, or the weights are not this network's."""
    from supernet.runs.checkpoint import CheckpointError, load_file

    any_whole = False
    for path in checkpoints if every else reversed(checkpoints):
        try:
            state = load_file(path)["parts"]
        except CheckpointError as error:
            print(f"{error}; passed over", file=sys.stderr)
            continue
        try:
            net.load_state_dict(state["net"])
            step = state["position"]["step"]
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:150]
            raise UsageError(f"{path}: is not of the supernet that config.yaml describes ({reason})") from error
        any_whole = True
        yield path.name.split(".")[0], step
        if not every:
            return
    if not any_whole:
        raise UsageError(f"{checkpoints[0].parent}: no checkpoint is usable")


def shared_of(cfg: DictConfig, parts: "SearchParts") -> Evaluate:
    """Accuracy in the supernet, as its weights are when called. Every architecture sees the same batches."""
    from supernet.evaluators.shared_weights import SharedWeights

    calibration = list(itertools.islice(parts.loaders.train, cfg.calibration_batches)) if cfg.statistics == "recalibrated" else []
    shared = SharedWeights(parts.net, parts.space, parts.task, parts.loaders.val_eval, parts.generators["net"], statistics=cfg.statistics,
                           calibration=calibration)

    def evaluate(genotypes: Sequence["Genotype"], stop: Callable[[], bool]) -> Iterator[tuple[int, float]]:
        def working() -> None:
            if stop():
                raise _Stopped

        with contextlib.suppress(_Stopped):
            for group in shared.population(genotypes, working=working):
                yield from ((n, found["accuracy"]) for n, found in group)
                working()

    return evaluate


class _Stopped(Exception):
    """In the middle of a group of architectures."""


def proxies_of(cfg: DictConfig, options: DictConfig, parts: "SearchParts", chosen: "Mapping[str, Proxy]") -> dict[str, Evaluate]:
    """The chosen proxies of a network of the architecture alone, on the first validation images. Raises UsageError: there are too few."""
    from supernet.app import compose
    from supernet.evaluators.proxies import ZeroCost, first_items
    from supernet.networks.build import final_normalisation

    if not chosen:
        return {}
    images, labels = first_items(parts.loaders.val_eval, cfg.proxy_batch, "proxy_batch")
    norm = final_normalisation(options.compat.pool_norm, options.compat.bn_statistics)

    def make(genotype: "Genotype") -> Any:
        return compose.network(options, parts.space, parts.space.candidates(genotype), parts.data, norm, parts.device)

    def evaluate(name: str) -> Evaluate:
        score = ZeroCost(make, (images, labels), parts.task, {name: chosen[name]})
        return lambda genotypes, stop: ((n, score(genotype)[name]) for n, genotype in enumerate(genotypes) if not stop())

    return {name: evaluate(name) for name in chosen}


def estimate(ranking: Ranking, evaluate: Evaluate, genotypes: Sequence["Genotype"], stop: Callable[[], bool]) -> None:
    """Fills in the estimates until `stop()`, with a moving line on a terminal."""
    started = time.perf_counter()
    with Counted(len(genotypes), "architectures") as progress:
        for n, value in evaluate(genotypes, stop):
            ranking.estimates[n] = value
            progress.add(said=ranking.name)
    ranking.seconds = time.perf_counter() - started
    progress.line(f"{ranking.name}: {len(ranking.estimates)} architectures in {ranking.seconds:.1f} s")


def made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"output={folder}: cannot make the folder ({error.strerror or error})") from error
    return folder


def line(ranking: Ranking, scores: dict[str, Any]) -> str:
    top = ", ".join(f"{scores[f'precision_at_{p}']:.0f} % at {p} %" for p in TOP)
    return (f"{ranking.name}: Kendall tau {scores['kendall_tau']:.3f} [{scores['kendall_low']:.3f}, {scores['kendall_high']:.3f}], "
            f"Spearman {scores['spearman']:.3f}, precision {top} ({scores['architectures']} architectures with a finite estimate)")


def write(output: Path, scored: Scored, texts: Sequence[str], truth: "np.ndarray", about: dict[str, Any], title: str) -> None:
    """rank.csv, rank.json, scatter.png and rank.html. Raises OSError."""
    from supernet.runs.folder import write_json

    with open(output / "rank.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "truth", *(ranking.name for ranking, _ in scored)])
        for i, text in enumerate(texts):
            writer.writerow([text, truth[i], *(r.estimates.get(i, "") for r, _ in scored)])
    write_json(output / "rank.json", about | {"scores": {ranking.name: scores for ranking, scores in scored}})
    write_page(output, scored, truth, title)


def write_page(output: Path, scored: Scored, truth: "np.ndarray", title: str) -> None:
    """scatter.png and rank.html. Of a supernet that was looked at along its run both show the last state."""
    from supernet.report import figure as figures
    from supernet.report import page
    from supernet.report.curves import line_chart
    from supernet.report.scatter import scatter, scatter_svg

    rows = [(ranking.name, f"{s['kendall_tau']:.3f}", f"{s['kendall_low']:.3f} to {s['kendall_high']:.3f}", f"{s['spearman']:.3f}",
             *(f"{s[f'precision_at_{p}']:.0f} %" for p in TOP), str(s["architectures"]), f"{s['seconds']:.1f}") for ranking, s in scored]
    head = ("estimate", "Kendall tau", "95 % interval", "Spearman", *(f"precision, top {p} %" for p in TOP), "architectures", "seconds")
    panels = {AXES.get(ranking.by, ranking.by): ranking.beside(truth) for ranking, _ in scored}
    label = "test accuracy, trained alone (%)"
    with figures.house_style():
        figures.save(scatter(panels, y_label=label), output / "scatter.png", 150)
    drawings = [page.figure(figures.with_ids(scatter_svg({name: points}, y_label=label), f"s{n}"), f"{name} against the truth")
                for n, (name, points) in enumerate(panels.items())]
    sections = [page.header("Does it rank?", title), page.section("Rank correlations", page.table(rows, head=head, tall=True))]
    along = [(r.step, s["kendall_tau"], s["kendall_low"], s["kendall_high"]) for r, s in scored if r.by == "shared_weights"]
    if len(along) > 1:
        steps, *curves = zip(*along)
        svg = line_chart({name: (steps, curve) for name, curve in zip(("tau", "2.5 %", "97.5 %"), curves)}, x_label="step of the search",
                         y_label="Kendall tau")
        sections.append(page.section("Along the run", page.figure(svg, "Kendall tau of the shared weights by step of the search")))
    sections.append(page.section("Every architecture", page.grid(drawings)))
    (output / "rank.html").write_text(page.page("Does it rank?", sections), encoding="utf-8")


def command() -> None:
    """The console command."""
    cli(main)
