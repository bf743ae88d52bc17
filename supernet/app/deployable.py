"""A search again, to take sub-networks out of its supernet: its network, images, what they cost, and a training of one further."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from supernet.app.build import build, space_from
from supernet.app.compose import FinalRead, Read, final_read, loading, search_machine, search_read, training_of
from supernet.app.earlier import TeacherOf, weights_digest
from supernet.app.offer import SearchOffer
from supernet.app.own_ops import register_own_ops
from supernet.app.trained import check_split, run_options, some, status_of
from supernet.costs.additive import counted
from supernet.costs.base import QUANTITIES
from supernet.costs.chain import ChainCost
from supernet.data.loader import Loader
from supernet.deployment.extraction import extracted, with_own_statistics
from supernet.deployment.limits import chain_cost
from supernet.errors import UsageError
from supernet.evaluators.shared_weights import SharedWeights
from supernet.genotype import Genotype
from supernet.passes import extremes
from supernet.runs.folder import RunFolder
from supernet.runs.loading import Loaded, load
from supernet.space import Space
from supernet.spaces.named import names
from supernet.tasks.base import Batch
from supernet.training.final import FinalLoop
from supernet.training.stages import narrowed, widen_genotype


@dataclass
class Deployable:
    """cfg: the options of the search. space: what it searched; loaded.space where ops were left out of it. val: the images of its
    validation part that architectures are judged on; test: read once for each network that is kept. calibration: training batches for the
    statistics of norms."""

    folder: RunFolder
    cfg: DictConfig
    loaded: Loaded
    space: Space
    read: Read
    val: Any
    test: Loader
    calibration: list[Batch]
    device: torch.device
    seed: int

    @cached_property
    def digest(self) -> str:
        """Of the supernet's weights."""
        return weights_digest(self.loaded.network.state_dict())

    @property
    def supernet(self) -> nn.Module:
        return self.loaded.network

    @cached_property
    def shared(self) -> SharedWeights:
        return SharedWeights(self.supernet, self.space, self.read.task, self.val, self.generator(), calibration=self.calibration,
                             statistics="recalibrated" if self.calibration else "running")

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.seed)

    @cached_property
    def costs(self) -> dict[str, ChainCost]:
        """What is counted, of the networks that are handed out."""
        sizes = {name: value for name, value in self.supernet.built.sizes.items() if name != "norm"}
        return {name: chain_cost(counted(self.space, name, **sizes)) for name in QUANTITIES}

    @cached_property
    def extremes(self) -> tuple[Genotype, Genotype]:
        """The architectures of least and most multiply-adds."""
        least, most = extremes(self.space, self.costs["multiply_adds"])
        return self.space.canonical(least), self.space.canonical(most)

    def widened(self, genotype: Genotype) -> Genotype:
        return genotype if self.space is self.loaded.space else widen_genotype(self.loaded.space, genotype)

    def network(self, genotype: Genotype) -> nn.Module:
        """Of an architecture, with the weights that it shares and statistics of its own."""
        net = extracted(self.loaded.space, self.widened(genotype), self.supernet)
        return with_own_statistics(net, self.read.task, self.calibration, self.generator())

    def on_cpu(self, genotype: Genotype) -> nn.Module:
        """Its network, of which only sizes count."""
        return extracted(self.loaded.space, self.widened(genotype), self.supernet).cpu()

    def input(self, batch: int) -> Tensor:
        """Noise of the shape that the network reads, or items of a text, on the CPU."""
        example = self.read.data.example(torch.device("cpu"))
        if not example.is_floating_point():
            return example
        drawn = torch.randn(batch, *example.shape[1:], generator=torch.Generator().manual_seed(0))
        return drawn.contiguous(memory_format=torch.channels_last) if drawn.dim() == 4 else drawn

    def alpha_batches(self) -> Iterator[Batch]:
        """The validation part, shuffled, again and again: what alphas learn from, as in a search. The same at every call, whatever was done
        before."""
        batches = self.read.loaders.val.apart(None, self.generator())
        while True:
            yield from batches

    # ---- training further

    def final_options(self, options: Mapping[str, Any]) -> DictConfig:
        """Those of train_final.py on the search's data."""
        return SearchOffer(self.cfg, self.loaded.space, self._words).final_options(options)

    @cached_property
    def _words(self) -> list[str]:
        words = self.folder.known_status().get("overrides")
        return [str(word) for word in words] if type(words) is list else []

    def fine_tuning(self, net: nn.Module, cfg: DictConfig, distilled: bool) -> FinalLoop:
        """What trains the network further, on the part that final trainings read; with `distilled` also by what the largest says."""
        read: FinalRead = final_read(cfg, self.device)
        teacher = None
        if distilled:
            largest = self.network(self.extremes[1])
            teacher = TeacherOf(f"{self.folder.path}: the largest sub-network", replace(self.loaded, network=largest, weights=None))
        return training_of(cfg, net, read, self.device, teacher=teacher)


def deployable(cfg: DictConfig) -> Deployable:
    """From the options of the command. Nothing of the test is read, but that it is there. Raises Mendable errors."""
    folder = RunFolder(Path(cfg.run))
    status = status_of(folder, cfg.run, "a search")
    if status.get("script") != "train_search":
        raise UsageError(f"run={cfg.run}: expected the folder of a search, whose supernet holds many networks, got one of "
                         f"{str(status.get('script'))[:40]}")
    own = OmegaConf.create(run_options(folder, cfg.trust))
    OmegaConf.set_struct(own, False)
    own.device, own.compile, own.graph_augmentation, own.backend = cfg.device, "none", False, "plain"
    own.threads = own.threads if cfg.threads is None else cfg.threads
    register_own_ops(build)
    a_users = Genotype.load(folder.genotype).space not in names() if folder.genotype.exists() else False
    machine = search_machine(own)
    loaded = load(folder.path, space=space_from(own.space) if a_users and own.get("space") else None, device=str(machine.device))
    if not all(spec.is_chain for spec in loaded.space.cells.values()):
        raise UsageError(f"run={cfg.run}: deployment takes sub-networks of chains of decisions, space {loaded.space.name} is none; "
                         f"train_final.py genotype={cfg.run}/genotype.json trains what that search found")
    candidates = loaded.network.built.candidates
    whole = loaded.space.candidates()
    space = loaded.space if candidates == whole else narrowed(loaded.space, candidates)
    read = search_read(own, machine)
    check_split(folder, read.loaders.split)
    val = read.loaders.val_eval if cfg.max_val is None else some(read.loaders.val_eval, cfg.max_val, cfg.seed)
    generator = torch.Generator(machine.device).manual_seed(cfg.seed)
    calibration = [] if read.task.streams else list(itertools.islice(read.loaders.train.apart(None, generator), cfg.calibration_batches))
    test = read.data.test(loading(own, machine.device))
    return Deployable(folder, own, loaded, space, read, val, test, calibration, machine.device, cfg.seed)
