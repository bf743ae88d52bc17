"""Three methods on NAS-Bench-201, whose table tells the true accuracy of every epoch's cell: DARTS, whose cells collapse; GDAS; DrNAS.

DARTS has half of the time, the others share what is left.
"""

from collections.abc import Iterator

from benchmarks.gpu import truth
from benchmarks.gpu.checks import Bench, Check, Report

SEARCHES = (("darts_first_order_nasbench201", 0.5, True), ("gdas_nasbench201", 0.5, False), ("dr_nas_nasbench201", 1.0, True))


def run(bench: Bench, report: Report) -> None:
    truth.need_hydra()
    report.each(checks(bench, report))


def checks(bench: Bench, report: Report) -> Iterator[Check]:
    """Preset, share of the time that is left, whether a graph can hold its steps."""
    for preset, share, captured in SEARCHES:
        yield Check(preset, lambda preset=preset, share=share, captured=captured: truth.search(
            bench, report, preset, truth.fastest(bench, "nasbench201", captured), truth.ends_of(bench, share)))
