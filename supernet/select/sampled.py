"""The best of many sampled architectures, evaluated with the shared weights (random search with weight sharing, Li & Talwalkar 2019, Sec.
3.3; ENAS, Pham et al. 2018, Sec. 2.3)."""

import itertools
import random

import torch

from supernet.evaluators.shared_weights import SharedWeights, Statistics
from supernet.genotype import Genotype
from supernet.ranges import Count, ranged
from supernet.select.argmax import argmax
from supernet.select.base import FinalSelection
from supernet.training.search import SearchLoop


@ranged
class Sampled(FinalSelection):
    """Draws `n` architectures, from the space or (`source=relaxation`) from what was learned, evaluates each on `screen_batches` batches of
    the validation part, then the best `finalists` on all of it, and returns the one with the best accuracy. Batch norms use each
    batch's own statistics, or are recalibrated on `calibration_batches` training batches (SPOS)."""

    def __init__(self, *, n: Count = 1000, screen_batches: Count = 1, finalists: Count = 10, source: str = "space",
                 statistics: Statistics = "batch", calibration_batches: Count = 10):
        if source not in ("space", "relaxation"):
            raise ValueError(f"final_select.source must be space or relaxation, got {source!r}")
        if statistics not in ("recalibrated", "batch", "running"):
            raise ValueError(f"final_select.statistics must be recalibrated, batch or running, got {statistics!r}")
        self.n, self.screen_batches, self.finalists, self.source = n, screen_batches, finalists, source
        self.statistics, self.calibration_batches = statistics, calibration_batches

    def __call__(self, loop: SearchLoop) -> Genotype:
        search, generator = loop.search, loop.generators["alpha"]
        rng = random.Random(int(torch.randint(2**62, (), generator=generator, device=generator.device)))

        def draw() -> Genotype:
            if self.source == "space":
                return loop.space.sample(rng)
            with torch.no_grad():
                return argmax(loop.space, search.relaxation(generator))

        def score(batches: list, item: str) -> dict[Genotype, float]:
            evaluate = SharedWeights(search.net, loop.space, search.task, batches, loop.generators["net"], statistics=self.statistics,
                                     calibration=calibration, group=search.group)
            found, images = {}, sum(search.group.items(batch) for batch in (*batches, *calibration))

            def working() -> None:
                loop.recorder.working(len(found), len(candidates), item)

            working()
            for group in evaluate.population(candidates, working=working):
                for n, metrics in group:
                    found[candidates[n]] = metrics["accuracy"]
                    loop.position.images += images
                working()
            return found

        calibration = list(itertools.islice(loop.train, self.calibration_batches)) if self.statistics == "recalibrated" else []
        candidates = list(dict.fromkeys(draw() for _ in range(self.n)))
        batches = list(loop.val)
        screened = score(batches[: self.screen_batches], "sampled architectures")
        candidates = sorted(candidates, key=screened.__getitem__, reverse=True)[: self.finalists]
        scores = score(batches, "finalists")
        loop.position.trials += len(screened)
        return max(candidates, key=scores.__getitem__)
