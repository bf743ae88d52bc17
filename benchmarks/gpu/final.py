"""DARTS_V2 retrained by the published recipe (20 cells, C=36, batch 96, auxiliary head, Cutout, drop path): how long an epoch takes under
every way to compute it.

`speed` has the same network's step on one batch that lies on the device; here the whole loop runs: loading, augmentation, step, guard. An
epoch is 521 steps at the pace of some seconds, for a whole one of each would take the minutes of all other parts; then one whole epoch of
the fastest, to hold the others' numbers against, if there is time.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.gpu import finals
from benchmarks.gpu.checks import Bench, Check, Failed, Report, Skipped, Values
from benchmarks.gpu.speed import cleaned
from benchmarks.gpu.truth import OutOfTime, Watched, ends_of, need_hydra, options_of
from benchmarks.gpu.variants import BY_NAME
from supernet.runs.journal import Journal
from supernet.training.final import fit_final

PART = "final"
EPOCHS = 600  # published
# By name: the variant of `variants`, and whether the network is compiled by TorchInductor. What takes longest to begin comes last.
WAYS: Mapping[str, tuple[str, bool]] = {"channels_last": ("channels_last", False), "bf16": ("bf16", False), "tf32": ("tf32", False),
                                        "plain": ("plain", False), "native": ("native", False), "native_bf16": ("native_bf16", False),
                                        "compiled": ("channels_last", True), "compiled_bf16": ("bf16", True)}
OF_A_STAND_IN = ("channels_last", "bf16", "plain", "native")  # TorchInductor compiles for minutes on a CPU
FOR_S = 5.0  # of steps that are timed
WARM = 6
WHOLE = "a whole epoch of the fastest"


def run(bench: Bench, report: Report) -> None:
    need_hydra()
    report.each(checks(bench, report))


def checks(bench: Bench, report: Report) -> Iterator[Check]:
    for name in OF_A_STAND_IN if bench.toy else WAYS:
        yield Check(name, lambda name=name: pace(bench, name))
    yield Check(WHOLE, lambda: whole(bench, report))


def options(bench: Bench, name: str) -> list[str]:
    """As train_final.py takes them."""
    of, compiled = WAYS[name]
    found = options_of(BY_NAME[of], bench.device)
    return [word for word in found if not word.startswith("compile=")] + [f"compile={'inductor' if compiled else 'none'}"]


def pace(bench: Bench, name: str) -> Values:
    cleaned(bench.device)
    with BY_NAME[WAYS[name][0]].computing(bench.device):
        _, loop = finals.composed(bench, *options(bench, name))
        loop.net.drop_path_prob = loop.drop_path_prob  # as in the last epochs
        found = finals.timed(bench, loop, warm=1 if bench.toy else WARM, for_s=0.0 if bench.toy else FOR_S)
    if not found["finite"]:
        raise Failed("weights are not finite", found)
    return found


def fastest(records: list[dict[str, Any]]) -> str | None:
    """Of what a journal holds; None where nothing was measured."""
    took = {r["check"]: r["values"]["epoch_s"] for r in records if r.get("kind") == "check" and r.get("part") == PART
            and r.get("verdict") == "passed" and r["check"] in WAYS}
    return min(took, key=took.__getitem__) if took else None


def whole(bench: Bench, report: Report) -> Values:
    """One epoch with all that a training does; of the images that are at hand."""
    name = fastest(list(Journal.readable(bench.journal.path)))
    if name is None:
        raise Skipped("no way to compute was measured")
    cleaned(bench.device)
    with BY_NAME[WAYS[name][0]].computing(bench.device):
        cfg, loop = finals.composed(bench, *options(bench, name))
        watched = Watched(report, {"training": WHOLE, "way": name}, ends_of(bench, 1.0))
        try:
            fit_final(loop, cfg.epochs, watched, until=1)
        except OutOfTime as late:
            raise Skipped(f"no time for a whole epoch: {loop.position.step} of {len(loop.train)} steps") from late
    (epoch,) = watched.epochs
    return {"way": name, "images": loop.train.num_items, "steps": len(loop.train), "seconds": epoch["seconds"],
            "train_loss": epoch["train_loss"]}
