"""How the best architecture of a search by trials came about: which change gained what."""

from supernet.report import page
from supernet.report.curves import thinned
from supernet.report.document import Drawn, drawing
from supernet.report.names import plain
from supernet.report.progress import Step, ancestry, forebears
from supernet.report.run_files import RunFiles
from supernet.report.sections.timeline import difference
from supernet.report.trial_cells import Architectures
from supernet.report.wanted import Score, scores_of
from supernet.trials import best

MAX_CELLS = 12   # architectures that are drawn
MAX_STEPS = 200  # rows of the table
MAX_WORDS = 80   # of what a searcher says of a change, in characters


def shown(run: RunFiles) -> Drawn | None:
    top = best(run.trials)
    if top is None:
        return None
    steps, scores = ancestry(run.trials, top), scores_of(run)
    count = len(forebears(run.trials, top))
    note = f"Trial {top.number} descends from {count} trial{'s' if count != 1 else ''}." if count else \
        f"Trial {top.number} was made from no other trial."
    if count:
        note += " The way back goes over the better of two parents; what changed nothing is left out. Gained: of the first score."
    kept = [steps[i] for i in thinned(len(steps), MAX_CELLS)]
    if len(kept) < len(steps):
        note += f" {len(kept)} of the {len(steps)} architectures on it are drawn; strong: what the one drawn before did not have."
    elif count:
        note += " Strong: what changed."
    data = Architectures([step.trial.genotype for step in kept], run.quietly("genotype.json").get("outputs")).data()
    data["titles"] = [f"trial {step.trial.number}: {scores[0].label} {scores[0].shown(step.trial.scores[0]):.6g}" for step in kept]
    html = page.paragraph(note, soft=True) + drawing("ancestry", kind="lineage", label="the architectures on the way to the best")
    if len(steps) > 1:
        html += page.table([_row(step, scores[0]) for step in steps[-MAX_STEPS:]], tall=True, prose=6,
                           head=("trial", "from", "how", scores[0].label, "gained", "what changed"))
    return Drawn(html, {"ancestry": data})


def _row(step: Step, score: Score) -> tuple[str, ...]:
    trial, before = step.trial, step.before
    parents = "" if before is None else " and ".join(map(str, (before.number, *step.others)))
    gained = "" if step.gain is None else f"{score.shown(step.gain):+.6g}"
    changed = "" if before is None else difference(before.genotype, trial.genotype)
    if before is not None and before.fidelity != trial.fidelity:
        changed = "; ".join([*([changed] if changed else []), f"trained {trial.fidelity / before.fidelity:.3g} times as long"])
    return (str(trial.number), parents, plain(trial.change, MAX_WORDS), f"{score.shown(trial.scores[0]):.6g}", gained, changed)
