"""The network of a run again, with images that it may be asked about: never those of the test."""

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from supernet.app.build import build, space_from
from supernet.app.command_line import composing
from supernet.app.compose import final_machine, final_read, search_machine, search_read
from supernet.app.own_ops import register_own_ops
from supernet.app.trust import check_targets
from supernet.data.loader import Loader
from supernet.data.preprocess import ImagePreprocessing
from supernet.data.split import Split
from supernet.errors import UsageError
from supernet.evaluators.shared_weights import SharedWeights
from supernet.genotype import Genotype
from supernet.runs.checkpoint import all_files
from supernet.runs.folder import RunFolder
from supernet.runs.loading import Loaded, load
from supernet.space import Candidates, Space
from supernet.spaces.named import names
from supernet.tasks.base import Task

CALIBRATION = 10  # batches of the training part, for the statistics of a supernet's batch norms


@dataclass(frozen=True)
class Trained:
    """What evaluates architectures in a run's network. num_items: in `shared.batches`. candidates: what the network holds. on: sentences
    that say what is asked, on what."""

    shared: SharedWeights
    space: Space
    candidates: Candidates
    num_items: int
    on: tuple[str, ...]


def run_options(folder: RunFolder, trusted: Collection[str]) -> dict[str, Any]:
    """The options of a run that may build what it was made of. Raises Mendable errors."""
    folder.check_format()
    options = folder.options()
    check_targets(options, folder.config, trusted)
    return options


def status_of(folder: RunFolder, given: str, wanted: str) -> dict[str, Any]:
    """What a run's folder says of it. given: how the command line names it. wanted: what should be there. Raises UsageError: no run is."""
    status = folder.known_status()
    if not status:
        inside = len(list(folder.path.glob("*/run.json"))) if folder.path.is_dir() else 0
        seen = f"this is a folder of {inside} runs: name one of them" if inside else "there is no run.json"
        raise UsageError(f"run={given}: expected the folder of {wanted}; {seen}")
    return status


def trained(folder: RunFolder, *, images: int | None, seed: int, device: str, trusted: Collection[str]) -> Trained:
    """The supernet of a search at its last checkpoint, or a final network. images: how many it is asked about at most, drawn from the
    seed; None for all. Raises Mendable errors: one of them is missing."""
    cfg = OmegaConf.create(run_options(folder, trusted))
    cfg.device, cfg.compile, cfg.graph_augmentation = device, "none", False
    register_own_ops(build)
    with composing():
        own = Genotype.load(folder.genotype).space not in names() and cfg.get("space")  # no name leads to a space of the user's
        loaded = load(folder.path, space=space_from(cfg.space) if own else None, device=device)
        return {"train_search": _search, "train_final": _final}[folder.known_status()["script"]](folder, cfg, loaded, images, seed)


def _search(folder: RunFolder, cfg: DictConfig, loaded: Loaded, images: int | None, seed: int) -> Trained:
    machine = search_machine(cfg)
    read = search_read(cfg, machine)
    _check_task(read.task)
    check_split(folder, read.loaders.split)
    batches, generator = some(read.loaders.val_eval, images, seed), _generator(machine.device, seed)
    calibration = list(itertools.islice(read.loaders.train.apart(None, generator), CALIBRATION))
    shared = SharedWeights(loaded.network, loaded.space, read.task, batches, generator, calibration=calibration)
    name = all_files(folder.checkpoints)[-1 - len(loaded.notes)].name.split(".")[0]
    of = len(read.loaders.split.val)
    on = (f"Judged by the supernet at its last checkpoint, {name}: only the ops of one architecture run, with shared weights, and nothing "
          f"is trained. Items: {_count(batches.num_items, of, read.data.item)} of the search's validation part (split "
          f"{read.loaders.split.digest}), on which the search also chose; never the test. "
          f"{_statistics(shared, f'recalibrated for each architecture on {len(calibration)} training batches')}",)
    return Trained(shared, loaded.space, loaded.network.built.candidates, batches.num_items, on)


def _final(folder: RunFolder, cfg: DictConfig, loaded: Loaded, images: int | None, seed: int) -> Trained:
    device, _ = final_machine(cfg)
    read = final_read(cfg, device)
    _check_task(read.task)
    check_split(folder, read.loaders.split)
    if read.loaders.val is not None:
        source, part = read.loaders.val, "the validation part that was held out, which it was not trained on"
    else:
        source = _plain(read.loaders.train, loaded)
        part = "its own training part, not augmented: none were held out, so this tells what its fit rests on, not how it does on new ones"
    batches = some(source, images, seed)
    shared = SharedWeights(loaded.network, loaded.space, read.task, batches, _generator(device, seed), statistics="running")
    on = (f"Judged by the final network itself with the weights it was trained to; an edge is taken out by a zero in its place, and "
          f"nothing is trained again. Items: {_count(batches.num_items, source.num_items, read.data.item)} of {part}; never the test. "
          f"{_statistics(shared, 'as the training left them')}",)
    return Trained(shared, loaded.space, loaded.network.built.candidates, batches.num_items, on)


def some(loader: Loader, images: int | None, seed: int) -> Loader:
    """At most so many of a loader's images, drawn from a seed of their own, in order."""
    chosen = loader.indices
    if images is not None and images < len(chosen):
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))[:images].sort().values
        chosen = chosen[order.to(chosen.device)]
    return Loader(loader.images, chosen, batch_size=loader.batch_size, transform=loader.transform,
                  generator=_generator(loader.device, seed), shuffle=False, drop_last=False, device=loader.device, workers=loader.workers,
                  dtype=loader.dtype)


def _plain(train: Loader, loaded: Loaded) -> Loader:
    """The training images as those of a test are prepared. Raises UsageError: the run does not say how."""
    prepare = loaded.preprocess
    if not isinstance(prepare, ImagePreprocessing):
        raise UsageError("that training held nothing out, and does not say how its training images are read without augmentation")
    return Loader(train.images, train.indices, batch_size=train.batch_size, transform=lambda pixels, generator: prepare(pixels),
                  generator=train.generator, shuffle=False, drop_last=False, device=train.device, workers=train.workers, dtype=train.dtype)


def _check_task(task: Task) -> None:
    if task.streams:
        raise UsageError("items of a stream of text depend on each other, so that no standard error is known of what an edge carries there")


def check_split(folder: RunFolder, split: Split) -> None:
    """Raises UsageError: the data are not those of the run."""
    if folder.split.exists() and (known := split.digest_in(folder.split)) != split.digest:
        raise UsageError(f"{folder.path}: its images were split as {known}, and those here as {split.digest}: other data")


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def _count(asked: int, of: int, item: str) -> str:
    return f"all {of:,} {item}s" if asked == of else f"{asked:,} of the {of:,} {item}s, drawn at random,"


def _statistics(shared: SharedWeights, text: str) -> str:
    return f"Statistics of the batch norms: {text if shared.norms else 'those of each evaluated batch'}."
