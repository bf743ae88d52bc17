"""A final training again, to make its network smaller: its plain network, its images, and its own loop for training it further."""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ops.forms import NoPlainForm
from supernet.app.build import build, space_from
from supernet.app.compose import FinalRead, final_machine, final_read, loading, training_of
from supernet.app.earlier import TeacherOf, teacher_from, weights_digest
from supernet.app.own_ops import register_own_ops
from supernet.app.trained import check_split, run_options, status_of
from supernet.compression.methods import Settings
from supernet.compression.networks import AsNetwork, NotPractical
from supernet.data.loader import Loader
from supernet.errors import UsageError
from supernet.exports.readers import Images, reader_of
from supernet.genotype import Genotype
from supernet.networks.written import Block
from supernet.runs.folder import RunFolder
from supernet.runs.loading import Loaded, load
from supernet.spaces.named import names
from supernet.tasks.base import Batch
from supernet.training.final import FinalLoop, fit_final
from supernet.training.records import Recorder, Totals

TRIED = 3  # steps after which it is known how long a training takes


@dataclass
class Compressible:
    """cfg: the options of the run, as its networks are trained further by them. block: its network in plain PyTorch. settings: of the
    methods. seed: of what trainings draw, and of which images calibrate. recorder: of trainings. distilled: whether these learn of
    `teacher`, None for nobody."""

    folder: RunFolder
    cfg: DictConfig
    loaded: Loaded
    block: Block
    read: FinalRead
    test: Loader
    device: torch.device
    settings: Settings
    seed: int
    teacher: TeacherOf | None
    recorder: Callable[[FinalLoop], Recorder]
    distilled: bool = False
    last: dict[str, Any] | None = None  # the record of the last epoch that was trained; None: nothing was

    @property
    def x(self) -> Tensor:
        return self.batch(2)

    def batch(self, size: int) -> Tensor:
        """So many test-like images of noise, of the size that the network reads, on the CPU."""
        example = self.read.data.example(torch.device("cpu"))
        drawn = torch.randn(size, *example.shape[1:], generator=torch.Generator().manual_seed(0))
        return drawn.contiguous(memory_format=torch.channels_last)

    def images(self) -> list[Tensor]:
        """The calibration images: drawn from the training part by the seed, prepared as for a test."""
        sample = self.read.loaders.sample
        order = torch.randperm(sample.num_items, generator=torch.Generator().manual_seed(self.seed))[: self.settings.calibration]
        chosen = Loader(sample.images, sample.indices[order.sort().values.to(sample.device)], batch_size=32, transform=sample.transform,
                        generator=torch.Generator(sample.device), shuffle=False, drop_last=False, device=sample.device)
        return [images.cpu().contiguous() for images, _ in chosen]

    def loop(self, module: nn.Module) -> FinalLoop:
        """The run's own training, of a plain network."""
        self.read.restart(self.seed, self.device)
        net = AsNetwork(module).to(self.device)
        return training_of(self.cfg, net, self.read, self.device, teacher=self.teacher if self.distilled else None)

    def tune(self, module: nn.Module, budget_s: float | None = None) -> None:
        """See `compression.methods.Bench`. What the recorder raises ends it."""
        if not self.cfg.epochs:
            return
        loop = self.loop(module)
        recorder = self.recorder(loop)
        noted = Noted(recorder, len(loop.train) * self.cfg.epochs, budget_s)
        fit_final(loop, self.cfg.epochs, noted)
        self.last = noted.last
        with loop.evaluated():
            kept = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
        module.cpu().load_state_dict(kept)
        module.eval()

    def parts(self) -> "dict[str, Iterable[Batch]]":
        """What networks are judged on, by name: the images that were held out, where some were, and the test."""
        return {**({} if self.read.loaders.val is None else {"val": self.read.loaders.val}), "test": self.test}


class Noted:
    """A recorder that keeps the last epoch's record, and ends a training that would take too long."""

    def __init__(self, recorder: Recorder, steps: int, budget_s: float | None):
        self.recorder, self.steps, self.budget_s = recorder, steps, budget_s
        self.last: dict[str, Any] | None = None
        self.begun, self.done = time.perf_counter(), 0

    def step(self, items: int, totals: Totals) -> None:
        self.done += 1
        spent = time.perf_counter() - self.begun
        if self.budget_s is not None and self.done >= TRIED and spent * self.steps / self.done > self.budget_s:
            raise NotPractical(f"its {self.steps} steps would take {spent * self.steps / self.done / 60:.1f} minutes here, of "
                               f"{self.budget_s / 60:g} that it may take ({self.done} steps took {spent:.1f} s): fewer epochs, or "
                               "qat_minutes")
        self.recorder.step(items, totals)

    def line(self, text: str) -> None:
        self.recorder.line(text)

    def working(self, done: int = 0, total: int = 0, item: str = "") -> None:
        self.recorder.working(done, total, item)

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        self.done += 1
        self.last = record
        self.recorder.epoch(record, genotype)


def final_run(path: str, trusted: Collection[str]) -> tuple[RunFolder, dict[str, Any]]:
    """The folder of a finished final training, and its options. Raises Mendable errors: it is none."""
    folder = RunFolder(Path(path))
    status = status_of(folder, path, "a final training")
    if status.get("script") != "train_final":
        raise UsageError(f"run={path}: expected the folder of a final training, got one of {str(status.get('script'))[:40]}: train what it "
                         f"found first (train_final.py genotype={path}/genotype.json)")
    if not folder.weights.exists():
        raise UsageError(f"run={path}: that training has not finished: weights.pt is written at its end (train_final.py resume={path})")
    return folder, run_options(folder, trusted)


def compressible(cfg: DictConfig, settings: Settings, recorder: Callable[[FinalLoop], Recorder]) -> Compressible:
    """From the options of the command. Nothing of the test is read, but that it is there. Raises Mendable errors."""
    folder, options = final_run(cfg.run, cfg.trust)
    own = OmegaConf.create(options)
    OmegaConf.set_struct(own, False)
    register_own_ops(build)
    space = space_from(own.space) if Genotype.load(folder.genotype).space not in names() and own.get("space") else None
    loaded = load(folder.path, space=space, device="cpu")
    try:
        block = loaded.network.plain()
        reader = reader_of(block)
    except NoPlainForm as error:
        raise UsageError(f"run={cfg.run}: cannot be written as a plain network: {error}") from error
    if type(reader) is not Images:
        raise UsageError(f"run={cfg.run}: expected a network of images, this one reads text: compression is for image networks")
    settle(own, cfg)
    device, _ = final_machine(own)
    read = final_read(own, device)
    check_split(folder, read.loaders.split)
    teacher = None
    if cfg.distil:
        teacher = teacher_from(cfg.teacher or str(folder.path), read.data, device, space)
    test = read.data.test(loading(own, device))
    settings = replace(settings, calibration=min(settings.calibration, read.loaders.sample.num_items))  # as many as there are
    return Compressible(folder, own, loaded, block, read, test, device, settings, cfg.seed, teacher, recorder)


def settle(own: DictConfig, cfg: DictConfig) -> None:
    """Brings the options of a run to what its network is trained further by: shorter, more gently, without what the plain network does not
    have (the auxiliary head, drop path)."""
    own.epochs = max(1, round(own.epochs / 5)) if cfg.epochs is None else cfg.epochs
    own.w_optimizer.lr = own.w_optimizer.lr / 10 if cfg.lr is None else cfg.lr
    own.device, own.compile, own.graph_augmentation, own.backend = cfg.device, "none", False, "plain"
    own.threads = own.threads if cfg.threads is None else cfg.threads
    own.drop_path_prob, own.teacher, own.init, own.whiten_first = 0.0, None, None, False
    own.distillation = cfg.distillation
    if own.task.get("auxiliary_weight"):
        own.task.auxiliary_weight = 0.0


def trained_by(made: Compressible) -> dict[str, Any]:
    """What a training further depends on, beside the network and the run, as plain values."""
    own, told = made.cfg, {}
    if made.distilled and made.teacher is not None:
        told = {"temperature": own.distillation.temperature, "weight": own.distillation.weight, "teacher": made.teacher.digest}
    return {"epochs": own.epochs, "lr": own.w_optimizer.lr, "seed": made.seed, "device": made.device.type, **told}


def network_digest(made: Compressible) -> str:
    return weights_digest(made.loaded.network.state_dict())
