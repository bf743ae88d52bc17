"""How a search by trials went: what its generations are worth, the best so far against what was spent, how alike its architectures are."""

from supernet.report import page
from supernet.report.curves import thinned
from supernet.report.document import Drawn, drawing
from supernet.report.progress import AXES, Grouping, anytime, diversity, fitness, grouped, not_evaluated
from supernet.report.run_files import RunFiles
from supernet.report.sections.costs import duration
from supernet.report.wanted import Score, scores_of
from supernet.trials import Trial, best

MAX_POINTS = 1500  # of a line


def shown(run: RunFiles) -> Drawn | None:
    trials = run.trials
    if not trials:
        return None
    scores, groups = scores_of(run), grouped(trials)
    html = page.table(rows(trials, scores))
    if run.cut_trials:
        html += page.paragraph(f"Left out: {run.cut_trials} more records of trials.jsonl, of which the first is not trial {len(trials)}.",
                               soft=True)
    html += page.paragraph(f"Drag over a stretch of a chart to look closer, double-click to go back. Fitness and diversity: {groups.words};"
                           " the band is one standard deviation of the trials to either side of their mean.", soft=True)
    return Drawn(html + drawing("search", label="best so far, fitness and diversity"),
                 {"search": {"anytime": [_anytime(trials, n, score) for n, score in enumerate(scores)],
                             "charts": [*(_fitness(trials, groups, n, score) for n, score in enumerate(scores)),
                                        *_diversity(trials, groups)]}})


def rows(trials: list[Trial], scores: list[Score]) -> list[tuple[str, str]]:
    top = best(trials)
    kept = sum(trial.refused is None for trial in trials)
    found = [("trials", f"{len(trials):,}" + (f", {kept:,} of them within the limits" if kept < len(trials) else ""))]
    if top is not None:
        values = ", ".join(f"{score.label} {score.shown(value):.6g}" for score, value in zip(scores, top.scores))
        found.append(("best", f"trial {top.number}: {values}"))
    found += [(reason, f"{count:,}") for reason, count in not_evaluated(trials)]
    spent = [f"{sum(t.images for t in trials):,} images", f"{duration(sum(t.wall_s for t in trials))} of evaluations"]
    simulated = sum(t.simulated_s for t in trials)
    return [*found, ("spent on trials", ", ".join([*spent, *([f"{simulated:,.0f} simulated seconds"] if simulated else [])]))]


def _anytime(trials: list[Trial], n: int, score: Score) -> dict:
    found = anytime(trials, n)
    keep = thinned(len(found.best), MAX_POINTS)
    return {"name": score.label, "y": [score.shown(found.best[i]) for i in keep],
            "axes": [[AXES[axis], [amounts[i] for i in keep]] for axis, amounts in found.spent.items()]}


def _fitness(trials: list[Trial], groups: Grouping, n: int, score: Score) -> dict:
    found = fitness(trials, groups.groups, n)
    ends = [group.stop for group in groups.groups]

    def line(name: str, values: list[float | None], tone: int, faint: bool = False) -> dict:
        keep = thinned(len(ends), MAX_POINTS)
        shown = [None if value is None else score.shown(value) for value in values]
        return {"name": name, "x": [ends[i] for i in keep], "y": [shown[i] for i in keep], "tone": tone, "faint": faint}

    beside = [[None if f.deviation is None else f.mean + side * f.deviation for f in found] for side in (1, -1)]
    names = ("mean + deviation", "mean - deviation")[::score.sign]
    return {"title": f"{score.label} by generation" if "generation" in groups.words else f"{score.label} by window", "unit": groups.words,
            "lines": [line("best", [f.best for f in found], 0), line("mean", [f.mean for f in found], 1),
                      line(names[0], beside[0], 1, True), line(names[1], beside[1], 1, True)], "band": [2, 3][::score.sign]}


def _diversity(trials: list[Trial], groups: Grouping) -> list[dict]:
    found, ends = diversity(trials, groups.groups), [group.stop for group in groups.groups]
    keep = thinned(len(ends), MAX_POINTS)
    edges = max(sum(len(edges) for _, edges in trial.genotype.cells) for trial in trials)
    kept = [(ends[i], found[i]) for i in keep]
    return [{"title": "Edges in which two architectures differ", "unit": f"of {edges}, mean over pairs", "lines": [
                {"name": "edges", "x": [x for x, _ in kept], "y": [d.distance for _, d in kept], "tone": 2}]},
            {"title": "New architectures", "unit": "share of the trials (%)", "lines": [
                {"name": "new", "x": [x for x, _ in kept], "y": [100 * d.new for _, d in kept], "tone": 3}]}]
