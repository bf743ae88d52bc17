"""`python -m supernet.rank`: how well shared weights, or zero-cost proxies, order architectures that were trained alone.

The truth is the test accuracy of a table: this is a report, nothing is selected by it.
"""

import csv
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from supernet.config import UsageError, cli, composing, overrides, plain, shows_errors, validate

if TYPE_CHECKING:
    from supernet.genotype import Genotype

TOP = (5, 10, 20)  # percent


@dataclass
class Ranking:
    """What one way to estimate says of the drawn architectures, beside the truth."""

    name: str
    estimates: list[float] = field(default_factory=list)

    def scores(self, truth: Any, rng: Any, resamples: int) -> dict[str, float]:
        import numpy as np

        from supernet.statistics import kendall, kendall_interval, precision_at, spearman

        estimate = np.array(self.estimates)
        truth = truth[: len(estimate)]
        finite = np.isfinite(estimate) & np.isfinite(truth)
        a, b = estimate[finite], truth[finite]
        if len(a) < 3:
            raise UsageError(f"{self.name}: at least 3 architectures need a finite estimate and truth, got {len(a)}")
        low, high = kendall_interval(a, b, rng, resamples=resamples)
        return {"architectures": len(a), "kendall_tau": kendall(a, b), "kendall_low": low, "kendall_high": high, "spearman": spearman(a, b),
                **{f"precision_at_{percent}": precision_at(a, b, percent) for percent in TOP}}


@hydra.main(version_base="1.3", config_path="../conf", config_name="rank")
@shows_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, "rank")
    import numpy as np

    from supernet import checkpoint, compose
    from supernet.evaluators.proxies import PROXIES
    from supernet.run_folder import write_json

    unknown = sorted(set(cfg.by) - {"shared_weights", *PROXIES})
    if unknown or not cfg.by:
        raise UsageError(f"by must list some of shared_weights, {', '.join(PROXIES)}, got {list(cfg.by)}")
    with composing():
        options, states = search_of(cfg)
        parts = compose.search_parts(options)
        table = compose.build(cfg.evaluator)(parts.space)
        if table is None:
            raise UsageError(f"no table for space {parts.space.name}: pass evaluator.path=FILE, or put it under {cfg.evaluator.folder}")
        where = table.dataset(cfg.truth or next(iter(table.datasets), "none"))
    rng = random.Random(cfg.seed)
    genotypes = drawn(parts.space, cfg.n, rng)
    truth = np.array([table.value(g, where.test, missing="nan") for g in genotypes])
    output = Path(cfg.output or cfg.run or "rank")
    output.mkdir(parents=True, exist_ok=True)

    rankings, taus = [], []
    try:
        for name in cfg.by:
            for label, path in states if name == "shared_weights" else [("", None)]:
                if path is not None:
                    parts.net.load_state_dict(checkpoint.load_file(path)["parts"]["net"])
                ranking = Ranking(f"{name} {label}".strip())
                rankings.append(ranking)
                evaluate = evaluators(cfg, options, parts)[name]
                for estimate in estimated(evaluate, genotypes, ranking.name):
                    ranking.estimates.append(estimate)
                scores = ranking.scores(truth, np.random.default_rng(cfg.seed), cfg.resamples)
                taus.append((ranking.name, scores))
                print(line(ranking.name, scores), flush=True)
    except KeyboardInterrupt:
        print(f"interrupted: {len(rankings[-1].estimates)} architectures of {rankings[-1].name} are evaluated; what is there is written",
              file=sys.stderr)
        if len(rankings[-1].estimates) >= 3 and rankings[-1].name not in dict(taus):
            taus.append((rankings[-1].name, rankings[-1].scores(truth, np.random.default_rng(cfg.seed), cfg.resamples)))
    kept = [r for r in rankings if r.name in dict(taus)]
    if not kept:
        sys.exit(130)
    texts = [parts.space.text(g) for g in genotypes]
    with open(output / "rank.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "truth", *(r.name for r in kept)])
        for i, text in enumerate(texts):
            writer.writerow([text, truth[i], *(r.estimates[i] if i < len(r.estimates) else "" for r in kept)])
    write_json(output / "rank.json", {"table": table.source, "truth": where.test, "statistics": cfg.statistics, "seed": cfg.seed,
                                      "run": cfg.run, "scores": dict(taus)})
    write_page(output, kept, truth, taus, f"{parts.space.name}: {where.test} of {table.source}")
    print(f"written   {output / 'rank.html'}, rank.json, rank.csv")


def search_of(cfg: DictConfig) -> tuple[DictConfig, list[tuple[str, Path]]]:
    """The options that make the supernet, and its checkpoints as (label, path), oldest first. Raises UsageError."""
    from supernet import checkpoint
    from supernet.run_folder import RunFolder

    if (cfg.run is None) == (not cfg.options):
        raise UsageError("rank needs the folder of a search, run=FOLDER, or options={space:...,dataset:...}, one of both")
    if cfg.run is None:
        if "shared_weights" in cfg.by:
            raise UsageError("by=shared_weights needs a trained supernet: pass run=FOLDER, or rank by zero-cost proxies")
        options = hydra.compose("search", overrides=overrides(plain(cfg)["options"]))
        validate(options, "train_search")
        found = []
    else:
        folder = RunFolder(Path(cfg.run))
        if (folder.status() or {}).get("script") != "train_search" or not folder.config.exists():
            raise UsageError(f"run={cfg.run}: expected the folder of a search, with run.json and config.yaml")
        options = OmegaConf.load(folder.config)
        found = [(p.name.split(".")[0], p) for p in checkpoint.all_files(folder.checkpoints)]
        if not found and "shared_weights" in cfg.by:
            raise UsageError(f"run={cfg.run}: that search has no checkpoint")
        found = found[-1:] if cfg.checkpoints == "last" else found
    options.evaluator = None  # the command has its own
    options.device, options.threads = cfg.device, cfg.threads
    if cfg.max_val is not None:
        options.split.max_val = min(cfg.max_val, options.split.max_val or cfg.max_val)
    return options, found


def drawn(space: Any, n: int, rng: random.Random) -> list["Genotype"]:
    """`n` different architectures, drawn uniformly. Raises UsageError: the space has fewer."""
    if n > space.count():
        raise UsageError(f"n must be at most the {space.count()} architectures of space {space.name}, got {n}")
    if 2 * n > space.count():
        return rng.sample(list(space.enumerate()), n)
    found: dict[Any, None] = {}
    while len(found) < n:
        found[space.sample(rng)] = None
    return list(found)


def evaluators(cfg: DictConfig, options: DictConfig, parts: Any) -> dict[str, Callable[["Genotype"], float]]:
    """By name, higher is better: accuracy with shared weights, and the proxies on a network of the architecture alone."""
    import itertools

    from supernet import compose, setup
    from supernet.evaluators.proxies import PROXIES, ZeroCost
    from supernet.evaluators.shared_weights import SharedWeights

    calibration = list(itertools.islice(parts.loaders.train, cfg.calibration_batches))
    parts.loaders.train.restart()
    shared = SharedWeights(parts.net, parts.space, parts.task, parts.loaders.val_eval, parts.generators["net"],
                           statistics=cfg.statistics, calibration=calibration)
    x, y = next(iter(parts.loaders.val_eval))
    parts.loaders.val_eval.restart()
    norm = setup.final_normalisation(options.compat.pool_norm, options.compat.bn_statistics)

    def make(genotype: "Genotype") -> Any:
        return compose.network(options, parts.space, parts.space.candidates(genotype), parts.data, norm, parts.device)

    batch = (x[: cfg.proxy_batch], y[: cfg.proxy_batch])

    def proxy(name: str) -> Callable[["Genotype"], float]:
        score = ZeroCost(parts.space, make, batch, parts.task, [name])
        return lambda genotype: score(genotype)[name]

    return {"shared_weights": lambda genotype: shared(genotype)["accuracy"], **{name: proxy(name) for name in PROXIES}}


def estimated(evaluate: Callable[["Genotype"], float], genotypes: list["Genotype"], name: str) -> Iterator[float]:
    """The estimate of each architecture, with a moving line on a terminal."""
    from supernet.log import Progress

    progress = Progress(len(genotypes), len(genotypes), item="architecture")
    started = time.perf_counter()
    try:
        for i, genotype in enumerate(genotypes):
            yield evaluate(genotype)
            progress.update(i + 1, lambda: {}, items=1)
    finally:
        progress.close()
        progress.line(f"{name}: {time.perf_counter() - started:.1f} s")


def line(name: str, scores: dict[str, float]) -> str:
    top = ", ".join(f"{scores[f'precision_at_{p}']:.0f} % at {p} %" for p in TOP)
    return (f"{name}: Kendall tau {scores['kendall_tau']:.3f} [{scores['kendall_low']:.3f}, {scores['kendall_high']:.3f}], Spearman "
            f"{scores['spearman']:.3f}, precision {top} ({scores['architectures']} architectures)")


def write_page(output: Path, rankings: list[Ranking], truth: Any, taus: list[tuple[str, dict[str, float]]], title: str) -> None:
    """rank.html, and scatter.png of the last ranking."""
    import numpy as np

    from supernet.report import figure as figures
    from supernet.report import page
    from supernet.report.curves import line_chart
    from supernet.report.figure import with_ids
    from supernet.report.scatter import scatter, scatter_svg

    rows = [(name, f"{s['kendall_tau']:.3f}", f"{s['kendall_low']:.3f} to {s['kendall_high']:.3f}", f"{s['spearman']:.3f}",
             *(f"{s[f'precision_at_{p}']:.0f} %" for p in TOP), str(s["architectures"])) for name, s in taus]
    head = ("estimate", "Kendall tau", "95 % interval", "Spearman", *(f"precision, top {p} %" for p in TOP), "architectures")
    figure_of = []
    for n, ranking in enumerate(rankings):
        labels = {"x_label": ranking.name, "y_label": "test accuracy, trained alone (%)", "title": ranking.name}
        points = np.array(ranking.estimates), truth[: len(ranking.estimates)]
        figure_of.append(page.figure(with_ids(scatter_svg(*points, **labels), f"s{n}"), f"{ranking.name} against the truth"))
    with figures.house_style():
        figures.save(scatter(*points, **labels), output / "scatter.png", 150)
    sections = [page.header("Does it rank?", title), page.section("Rank correlations", page.table(rows, head=head)),
                page.section("Every architecture", page.grid(figure_of))]
    along = [s["kendall_tau"] for name, s in taus if name.startswith("shared_weights")]
    if len(along) > 1:
        svg = line_chart({"tau": (range(1, len(along) + 1), along)}, x_label="checkpoint", y_label="Kendall tau")
        sections.insert(2, page.section("Along the run", page.figure(svg, "Kendall tau by checkpoint")))
    (output / "rank.html").write_text(page.page("Does it rank?", sections), encoding="utf-8")


if __name__ == "__main__":
    cli(main)
