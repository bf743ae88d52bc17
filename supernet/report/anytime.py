"""What the best architecture so far is worth while a search goes on: means over seeds, with intervals, along a budget."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from supernet.files import write_whole
from supernet.report import figure as figures
from supernet.report import page
from supernet.report.curves import SERIES_COLOURS
from supernet.report.formats import comma_separated, latex, markdown
from supernet.report.names import plain
from supernet.report.referee import interval_text, plus_minus
from supernet.report.statistics import Interval, Sample, mean_interval, sample
from supernet.runs.journal import to_json

POINTS = 200  # of a curve
LABELS = {"simulated_s": "simulated seconds", "trials": "trials"}
HEAD = ("searcher", "seeds", "trials", "test accuracy, %", "interval of the mean", "median", "validation, %", "regret", "best found, %")


class Result(NamedTuple):
    """Of one searcher on one data set. test, validation: of the architecture that was chosen, over the seeds; optimum: the share of seeds
    that chose the architecture of the best test accuracy; others: test accuracy on other data sets."""

    searcher: str
    test: Sample
    interval: Interval
    median: float
    validation: Sample
    trials: float
    regret: float
    optimum: float
    others: Mapping[str, Sample]


@dataclass(frozen=True)
class Race:
    """Searches on one data set of a table. axis: what the budget counts, a field of the steps; test, validation: the table's columns, by
    row; steps: by searcher, for each seed the moments at which another architecture became the best, and the end; others: the test
    columns of other data sets, on which the architectures that were found here are tested as well (as NAS-Bench-201's authors report)."""

    dataset: str
    axis: str
    budget: float
    test: np.ndarray
    validation: np.ndarray
    steps: Mapping[str, Sequence[Sequence[Any]]]
    others: Mapping[str, np.ndarray] = field(default_factory=dict)

    def grid(self) -> np.ndarray:
        """From the first moment at which every search had evaluated something."""
        first = max(getattr(steps[0], self.axis) for seeds in self.steps.values() for steps in seeds)
        return np.linspace(min(first, self.budget), self.budget, POINTS)

    def curves(self, searcher: str) -> np.ndarray:
        """Test accuracy of the best so far (by validation), (seeds, POINTS), along `grid`."""
        grid, found = self.grid(), []
        for steps in self.steps[searcher]:
            at = np.array([getattr(step, self.axis) for step in steps])
            place = np.searchsorted(at, grid, side="right") - 1
            found.append(self.test[[step.row for step in steps]][np.maximum(place, 0)])
        return np.array(found)

    def results(self, *, level: float = 0.95, resamples: int = 10_000) -> list[Result]:
        """In the order of the searchers."""
        found, top = [], float(np.nanmax(self.test))
        for searcher, seeds in self.steps.items():
            rows = [steps[-1].row for steps in seeds]
            test, validation = self.test[rows], self.validation[rows]
            interval = mean_interval(test, np.random.default_rng(0), level=level, resamples=resamples)
            found.append(Result(searcher, sample(test), interval, float(np.median(test)), sample(validation),
                                float(np.mean([steps[-1].trials for steps in seeds])), top - float(test.mean()),
                                float((test >= top).mean()), {name: sample(column[rows]) for name, column in self.others.items()}))
        return found


def rows(race: Race, results: Sequence[Result]) -> list[list[str]]:
    return [[r.searcher, str(r.test.n), f"{r.trials:.0f}", plus_minus(*r.test[:2]), interval_text(r.interval), f"{r.median:.2f}",
             plus_minus(*r.validation[:2]), f"{r.regret:.2f}", f"{100 * r.optimum:.0f}", *(plus_minus(*s[:2]) for s in r.others.values())]
            for r in results]


def head(race: Race) -> list[str]:
    return [*HEAD, *(f"test on {name}, %" for name in race.others)]


def chart(race: Race, *, level: float, resamples: int) -> Figure:
    """A line a searcher, with the interval of its mean. Make and save it within `figure.house_style()`."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained", facecolor="white")
    axes, grid = figure.add_subplot(), race.grid()
    for (searcher, colour) in zip(race.steps, SERIES_COLOURS * len(race.steps)):
        curves = race.curves(searcher)
        axes.plot(grid, curves.mean(0), color=colour, label=plain(searcher))
        if len(curves) > 1:
            some = np.unique(np.linspace(0, POINTS - 1, 40).round().astype(int))
            bands = [mean_interval(curves[:, n], np.random.default_rng(0), level=level, resamples=min(resamples, 500)) for n in some]
            axes.fill_between(grid[some], *zip(*bands), color=colour, alpha=0.15, linewidth=0)
    later = np.array([race.curves(searcher).mean(0)[POINTS // 20:] for searcher in race.steps])  # the first steps would fill the picture
    axes.set_ylim(bottom=later.min() - 0.1 * (later.max() - later.min()))
    axes.set_xlabel(LABELS[race.axis])
    axes.set_ylabel(f"test accuracy on {race.dataset} (%)", parse_math=False)
    axes.grid(True, color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right")
    return figure


def write_race(output: Path, races: Sequence[Race], about: Mapping[str, Any], *, level: float, resamples: int) -> list[str]:
    """race.json, race.md, race.tex, race.csv, race.html and a picture for each data set. Returns what is printed. Raises OSError."""
    texts, tex, sections, table, said = [], [], [], [], []
    budget = f"{races[0].budget:,.0f} {LABELS[races[0].axis]} a search; the test accuracy is that of the architecture with the best " \
             f"validation accuracy; intervals of {100 * level:g} %; best found: share of seeds that end with the best there is"
    for n, race in enumerate(races):
        results = race.results(level=level, resamples=resamples)
        lines = rows(race, results)
        texts.append(f"## {race.dataset}\n\n{markdown(head(race), lines)}")
        tex.append(latex(head(race), lines, caption=f"Searchers on {race.dataset}: {budget}", label=f"tab:race_{race.dataset}"))
        table += [{"dataset": race.dataset, "searcher": r.searcher, "seeds": r.test.n, "trials": r.trials, "test_mean": r.test.mean,
                   "test_deviation": r.test.deviation, "test_low": r.interval.low, "test_high": r.interval.high, "test_median": r.median,
                   "validation_mean": r.validation.mean, "validation_deviation": r.validation.deviation, "regret": r.regret,
                   "share_of_optimum": r.optimum,
                   **{f"test_on_{name}_{key}": value for name, s in r.others.items() for key, value in zip(("mean", "deviation"), s)}}
                  for r in results]
        with figures.house_style():
            drawn = chart(race, level=level, resamples=resamples)
            figures.save(drawn, output / f"{race.dataset}.png", 150)
            svg = figures.with_ids(figures.svg(drawn), f"r{n}")
        sections.append(page.section(race.dataset, page.figure(svg, f"anytime curves on {race.dataset}", wide=True)
                                     + page.table(lines, head=head(race))))
        said.append(f"\n{race.dataset}\n{markdown(head(race), lines)}")
    names = list(dict.fromkeys(key for row in table for key in row))
    files = {"race.md": f"# Race\n\n{budget}.\n\n" + "\n\n".join(texts) + "\n", "race.tex": "\n".join(tex),
             "race.csv": comma_separated(names, [[row.get(name) for name in names] for row in table]),
             "race.json": to_json({**about, "results": table}, indent=1) + "\n",
             "race.html": page.page("Race", [page.header("Race", budget), *sections,
                                             page.section("Made from", page.preformatted(json.dumps(dict(about), indent=1), wrap=True))])}
    for name, text in files.items():
        write_whole(output / name, text.encode())
    return [*said, "", f"written   {', '.join(str(output / name) for name in sorted(files))}"]
