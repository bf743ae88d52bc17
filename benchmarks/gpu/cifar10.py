"""DARTS, first order, on CIFAR-10 as published: 8 cells, C=16, 50 epochs."""

from benchmarks.gpu import truth
from benchmarks.gpu.checks import Bench, Check, Report

PRESET = "darts_first_order_cifar10"


def run(bench: Bench, report: Report) -> None:
    truth.need_hydra()
    report.each([Check(PRESET, lambda: truth.search(bench, report, PRESET, truth.fastest(bench, "darts", True),
                                                    truth.ends_of(bench, 1.0)))])
