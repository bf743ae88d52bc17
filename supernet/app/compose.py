"""From options to objects: what the scripts and the `python -m supernet....` commands build before any work starts.

Besides those commands and the rest of `app/` this is the only place that sees a config.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ops import kernels
from ops.kernels import Backend
from ops.op import Normalisation
from supernet.app.build import build, space_from
from supernet.app.checks import for_each_stage, stage_options
from supernet.app.earlier import TeacherOf, teacher_from, warm_start
from supernet.app.fitting import choose_sizes
from supernet.app.lone_images import refuse_lone_images
from supernet.app.many import refuse_for_many
from supernet.app.options import named_on_command_line
from supernet.app.rehearsal import check_draws, check_interfaces, check_ops, check_scalar
from supernet.bilevel import Bilevel, rehearse
from supernet.costs.agreed import Agreed
from supernet.costs.base import Cost
from supernet.data.base import Data
from supernet.data.loader import FinalLoaders, Forever, Loader, Loading, SearchLoaders
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.monitors.base import Monitor
from supernet.networks.build import final_normalisation, initial_weights, memory_format, search_normalisation
from supernet.networks.cell import has_auxiliary_skips
from supernet.networks.measure import parameters
from supernet.networks.stacked import batch_norms, inherit_widened
from supernet.networks.whiten import first_convolution, whiten
from supernet.optim.descent import Descent, descend
from supernet.optim.eager import without_compiler
from supernet.optim.flat import FlatDescent
from supernet.optim.groups import weight_groups
from supernet.optim.optimizers import ExponentiatedGradient
from supernet.passes import check_passes, work_of
from supernet.processes.group import ALONE, Group
from supernet.processes.joined import device_of
from supernet.processes.launched import place
from supernet.relaxations.base import Relaxation
from supernet.runs.device import precision, prepare, resolve_device
from supernet.space import Candidates, Space
from supernet.tables.table import Table
from supernet.tables.yardstick import Yardstick
from supernet.tasks.base import Batch, Task
from supernet.training.final import FinalLoop
from supernet.training.graphed import Capturing, Graphed, check_graphable
from supernet.training.graphed_images import augment_in_graphs
from supernet.training.guard import Guard, first_nonfinite
from supernet.training.records import Generators, Position, SearchRecords, Totals, snapshots
from supernet.training.search import SearchLoop, free_values, no_skip_dropout, no_yardstick
from supernet.training.shrinking import check_sorts, check_wider, go_on_sorted, go_on_wider, opened
from supernet.training.stages import Stage, Stages, carry_over, narrowed, start_anew, widen_genotype


def settle_sizes(cfg: DictConfig, space: Space, named: Callable[[str], bool] = named_on_command_line) -> None:
    """Options that the space itself decides get their value, so that what is recorded and printed is what is built; so does `network` where
    it still is the protocol's, and that has another for this space (`networks`, by space). Raises UsageError: the command line (`named`:
    whether it names an option) asks for another."""
    for name, value in space.sizes.items():
        if named(name) and cfg[name] != value:
            raise UsageError(f"{name} must be {value} in space {space.name}, got {cfg[name]}")
        cfg[name] = value
        if cfg.get("stage"):
            cfg.stage[name] = None
    if len(rows := stage_options(cfg)) > 1:
        cfg.epochs = sum(row["epochs"] for row in rows)
    said = cfg.protocol[cfg.script]
    if (of_space := said.get("networks", {}).get(space.name)) is not None and cfg.network == said.network:
        cfg.network = of_space
    if not space.auxiliary_head and cfg.task.get("auxiliary_weight"):
        if named("task.auxiliary_weight"):
            raise UsageError(f"task.auxiliary_weight must be 0 in space {space.name}, whose networks have no such head, got "
                             f"{cfg.task.auxiliary_weight}")
        cfg.task.auxiliary_weight = 0.0


def of_stage(cfg: DictConfig, index: int) -> DictConfig:
    """The options with which one stage of a search is built."""
    own = cfg.copy()
    for key, value in stage_options(cfg)[index].items():
        OmegaConf.update(own, key, value, force_add=True)
    return own


def network_options(cfg: DictConfig) -> dict[str, Any]:
    """What the builder of a network takes beside its sizes."""
    return OmegaConf.to_container(cfg.network, resolve=True) if cfg.network else {}


def network(cfg: DictConfig, space: Space, candidates: Candidates, data: Data, norm: Normalisation, device: torch.device,
            **more: Any) -> nn.Module:
    """The network with `candidates`, initialised from the seed, on the device."""
    options = network_options(cfg)
    if cfg.checkpoint_cells:
        options["checkpoint_cells"] = True
    try:
        with initial_weights(cfg.seed):
            net = space.network(candidates, norm=norm, channels=cfg.channels, layers=cfg.layers, **data.sizes, **options, **more)
    except TypeError as error:
        raise UsageError(f"space {space.name} builds no networks for {data.name} with these options (recurrent spaces need text, as does "
                         f"gpt, others images; checkpoint_cells is for stacks of cells): {error}") from error
    return net.to(device, memory_format=memory_format(cfg.channels_last))


def supernet(cfg: DictConfig, space: Space, data: Data, task: Task, device: torch.device) -> nn.Module:
    """The network with all candidates of `space`, normalised as in a search."""
    norm = search_normalisation(cfg.compat.pool_norm, cfg.compat.bn_statistics, cfg.compat.bn_affine)
    return network(cfg, space, space.candidates(), data, norm, device, **task.network_options())


def without_ops(space: Space, names: Sequence[str]) -> Space:
    """The space that is searched when some ops take no part; itself where none is named. Raises UsageError."""
    if not names:
        return space
    known = {op for spec in space.cells.values() for op in spec.ops}
    if unknown := sorted(set(names) - known):
        raise UsageError(f"exclude_ops names {unknown[0]!r}, which space {space.name} does not have; there are {', '.join(sorted(known))}, "
                         "and exclude_ops=[] leaves none out")
    return narrowed(space, {kind: tuple(tuple(held and op not in names for op, held in zip(spec.ops, row)) for row in spec.present)
                            for kind, spec in space.cells.items()})


def loading(cfg: DictConfig, device: torch.device, group: Group = ALONE) -> Loading:
    return Loading(cfg.batch_size, cfg.eval_batch_size, device, workers=cfg.workers, channels_last=cfg.channels_last, group=group)


def normalise_together(cfg: DictConfig, net: nn.Module, group: Group) -> None:
    """Where it is asked for, the norms of a network go by the moments of the whole batch, of which each process has a part."""
    for norm in batch_norms(net) if cfg.synchronised_norms and group.size > 1 else ():
        norm.across = group


def backend_of(cfg: DictConfig, device: torch.device, group: Group) -> Backend:
    """Who computes from now on in this process."""
    hindrances = {"channels_last=false": not cfg.channels_last, f"amp={cfg.amp}": device.type == "cpu" and cfg.amp != "none",
                  "compile=inductor": cfg.compile == "inductor",
                  "synchronised_norms=true": cfg.synchronised_norms and group.size > 1}
    return kernels.use(cfg.backend, device=device.type, hindrance=next((option for option, hinders in hindrances.items() if hinders), None))


class Met(NamedTuple):
    """What a run has met of data, as far as its record goes: what is counted, how it was split (None: nothing was read), and how many
    steps it takes to see the training part."""

    item: str = "image"
    split: Any = None
    steps: int = 0

    @classmethod
    def of(cls, data: Data, loaders: SearchLoaders | FinalLoaders) -> "Met":
        return cls(data.item, loaders.split, len(loaders.train))


@dataclass
class SearchParts:
    """A supernet with its data and its architecture parameters, as they are before the first step. In a search in stages the network and
    the relaxation are those of the current stage."""

    device: torch.device
    generators: Generators
    data: Data
    loaders: SearchLoaders
    alpha_batches: Forever  # one stream over all stages
    space: Space
    searched: Space  # `space` without the ops that take no part
    task: Task
    net: nn.Module
    relaxation: Relaxation
    table: Table | None  # what is known of the space's architectures; for the record only
    backend: Backend
    group: Group = ALONE  # of the processes that search together

    @property
    def met(self) -> Met:
        return Met.of(self.data, self.loaders)


def relaxed(cfg: DictConfig, space: Space, generator: torch.Generator) -> Relaxation:
    """The relaxation within its wrappers, the first listed innermost."""
    relaxation = build(cfg.relaxation)(space, generator)
    for node in cfg.wrapper.values():
        relaxation = build(node)(relaxation, space, generator)
    return relaxation


def check_graph_augmentation(cfg: DictConfig, device: torch.device) -> None:
    """Raises UsageError: there is no GPU to have the graphs."""
    if cfg.graph_augmentation and device.type != "cuda":
        raise UsageError(f"graph_augmentation=true needs a CUDA device, got device={device}: pass graph_augmentation=false")


@dataclass
class Machine:
    """Where a search computes, and what it draws from. group: the processes that search together."""

    device: torch.device
    generators: Generators
    backend: Backend
    group: Group = ALONE


def search_machine(cfg: DictConfig, group: Group = ALONE) -> Machine:
    device, cpu = device_of(resolve_device(cfg.device), place()), torch.device("cpu")
    if cfg.compile == "graph" and device.type != "cuda":
        raise UsageError(f"compile=graph needs a CUDA device, got device={device}: pass compile=none")
    check_graph_augmentation(cfg, device)
    prepare(device, threads=cfg.threads, deterministic=cfg.deterministic, tf32=bool(cfg.tf32))
    without_compiler()
    generators = Generators.from_seed(cfg.seed, {"split": cpu, "alpha_init": cpu, "alpha": cpu, "net": device, "train": device,
                                                 "val": device, "drawn": device})
    return Machine(device, generators, backend_of(cfg, device, group), group)


@dataclass
class Read:
    """What a search reads, and what for."""

    data: Data
    loaders: SearchLoaders
    task: Task


def search_read(cfg: DictConfig, machine: Machine) -> Read:
    data, task = build(cfg.dataset.data), build(cfg.task)
    refuse_for_many(cfg, machine.group)
    data.check()
    loaders = data.search(loading(cfg, machine.device, machine.group), split=cfg.split, augment_val=cfg.compat.augment_val,
                          generators=machine.generators)
    if cfg.graph_augmentation:
        augment_in_graphs(Capturing(machine.device), data, loaders.train, loaders.val)
    return Read(data, loaders, task.for_classes(loaders.class_counts, machine.device))


def search_parts(cfg: DictConfig, machine: Machine | None = None, read: Read | None = None) -> SearchParts:
    """machine, read: where they were made before."""
    machine = machine or search_machine(cfg)
    device, generators = machine.device, machine.generators
    space = space_from(cfg.space)
    settle_sizes(cfg, space)
    searched = without_ops(space, cfg.get("exclude_ops") or ())  # the options may be those of an older run
    read = read or search_read(cfg, machine)
    net = supernet(of_stage(cfg, 0), searched, read.data, read.task, device)
    relaxation = relaxed(cfg, searched, generators["alpha_init"]).to(device)
    table = None if cfg.table is None else build(cfg.table)(space)
    return SearchParts(device, generators, read.data, read.loaders, Forever(read.loaders.val), space, searched, read.task, net, relaxation,
                       table, machine.backend, machine.group)


def search_stages(cfg: DictConfig, parts: SearchParts) -> Stages:
    """The search that trains the parts, in one stage or several. Later stages replace the network and the relaxation of `parts`."""
    rows = stage_options(cfg)
    epochs = [row.get("epochs", cfg.epochs) for row in rows]
    opens = len(rows) > 1 and bool(cfg.stage.get("open"))
    records = SearchRecords()
    first = parts.searched.candidates() if cfg.exclude_ops else None

    def make(index: int, space: Space, before: SearchLoop | None) -> SearchLoop:
        own = of_stage(cfg, index)
        if before is not None:
            before.release()
        if before is not None or opens:
            parts.net = supernet(own, space, parts.data, parts.task, parts.device)
            parts.relaxation = relaxed(own, space, parts.generators["alpha_init"]).to(parts.device)
        normalise_together(own, parts.net, parts.group)
        loop = search_loop(own, parts, space, records)
        if len(rows) > 1:
            loop.first_epoch, loop.about = sum(epochs[:index]), {"stage": index + 1}
            loop.schedule_epochs = sum(epochs) if cfg.stage.schedules == "search" else None
        if before is None:
            rehearse_search(loop, build(own.w_optimizer))
            if own.final_select is not None:
                build(own.final_select).check(loop)
            mean = parts.relaxation.mean().detach()
            refuse_lone_images(parts.net, lambda net, x: net(x, mean, generator=torch.Generator(parts.device)),
                               {"split.max_train": parts.loaders.train, "split.max_val": parts.loaders.val},
                               parts.data.example(parts.device))
        return loop

    if len(rows) == 1:
        return Stages(parts.space, [Stage(cfg.epochs)], make, candidates=first)
    if opens:
        plan = opening_stages(cfg, parts, epochs)
        return Stages(parts.space, plan, make, candidates=plan[0].candidates)
    hand_over = {"weights": carry_over, "none": start_anew}[cfg.stage.inherit]
    rehearse_stages(cfg, parts, hand_over is carry_over)
    return Stages(parts.space, [Stage(n, keep) for n, keep in zip(epochs, [*cfg.stage.keep, None])], make, hand_over, candidates=first)


def opening_stages(cfg: DictConfig, parts: SearchParts, epochs: Sequence[int]) -> list[Stage]:
    """The stages that open the space. Builds the network of each and throws it away, so that one which cannot go on from the one before
    says so. Raises UsageError, ValueError."""
    space = parts.searched
    if cfg.stage.inherit != "weights":
        raise UsageError(f"stage.open goes on with the weights of the stage before: pass stage.inherit=weights, got {cfg.stage.inherit}")
    if parts.relaxation.on_simplex:
        raise UsageError("stage.open adds choices of weight 0, and weights on a simplex do not grow from 0: pass relaxation=softmax")
    entries, sorts = OmegaConf.to_container(cfg.stage.open), for_each_stage(cfg.stage, "sort", cfg.stage.sort, len(epochs))
    if not all(type(sort) in (bool, type(None)) for sort in sorts) or sorts[0] and len(set(sorts)) > 1:
        raise UsageError(f"stage.sort must be true or false for each stage, and false for the first, got {sorts}")
    if any(sorts):
        check_sorts(parts.net)
    plan = [Stage(n, None, candidates, go_on_sorted if sort else go_on_wider)
            for n, candidates, sort in zip(epochs, opened(space, work_of(space, parts.net), entries), sorts)]
    before: nn.Module | None = None
    for index, stage in enumerate(plan):
        net = supernet(of_stage(cfg, index), narrowed(space, stage.candidates), parts.data, parts.task, torch.device("cpu"))
        if before is not None:
            check_wider(net, before)
        before = net
    return plan


def rehearse_stages(cfg: DictConfig, parts: SearchParts, inherits: bool) -> None:
    """Builds the network of every stage with all candidates, and throws it away, so that one which cannot be built, or which cannot inherit
    from the one before, says so (ValueError, UsageError) before any work starts."""
    narrowed(parts.searched, parts.searched.candidates())
    most = max(sum(row) for spec in parts.searched.cells.values() for row in spec.present)
    if cfg.stage.keep[0] >= most:
        raise UsageError(f"stage.keep must begin below the {most} candidates that an edge of space {parts.space.name} has, got "
                         f"{list(cfg.stage.keep)}; stage.keep=[] searches in one stage")
    before = parts.net
    for index in range(1, len(stage_options(cfg))):
        net = supernet(of_stage(cfg, index), parts.searched, parts.data, parts.task, torch.device("cpu"))
        if inherits:
            inherit_widened(net, before)
        before = net


def search_loop(cfg: DictConfig, parts: SearchParts, space: Space, records: SearchRecords) -> SearchLoop:
    """The search that trains the parts among the architectures of `space`, which may be a narrowed one; what it selects is of the parts'
    space. It goes on with the records, which the stages of a search share."""
    whole, select = parts.space, build(cfg.select)
    final_select = None if cfg.final_select is None else build(cfg.final_select)
    cost = None if cfg.cost is None else build(cfg.cost)(whole, **parts.data.sizes)
    if cost is not None and parts.group.size > 1:
        cost = Agreed(cost, parts.group)
    monitors = {name: build(node)(space) for name, node in cfg.monitor.items()}
    search = bilevel(cfg, parts, space, cost, records.position)
    return SearchLoop(
        search, parts.loaders.train, parts.alpha_batches, parts.loaders.val_eval,
        drawn=lambda batch_size: parts.loaders.val.apart(batch_size, parts.generators["drawn"]),
        lr=(cfg.w_optimizer.lr, cfg.alpha_optimizer.lr),
        schedules=(build(cfg.w_schedule), build(cfg.alpha_schedule)), space=space,
        select=lambda weights: widen_genotype(whole, select(space, weights)),
        finish=None if final_select is None else lambda loop: widen_genotype(whole, final_select(loop)),
        generators=parts.generators, guard=search.guard, totals=Totals(parts.device), position=records.position,
        trajectory=records.trajectory, verdict=records.verdict, snapshots=snapshots(cfg.alpha_snapshots, cfg.epochs),
        shift=int(cfg.compat.scheduler_step == "start"), yardstick=no_yardstick if parts.table is None else Yardstick(parts.table),
        cost=cost, alpha_begin=cfg.alpha_begin, alpha_every=cfg.alpha_every, drop_path_prob=cfg.drop_path_prob,
        drop_path_rises=cfg.drop_path_rises, monitors=monitors,
        skip_dropout=no_skip_dropout if cfg.skip_dropout is None else build(cfg.skip_dropout),
        graphed=captured(cfg, parts, search, monitors))


def bilevel(cfg: DictConfig, parts: SearchParts, space: Space, cost: Cost | None, position: Position) -> Bilevel:
    """The step of a search, and the guard that looks at its numbers."""
    net, relaxation = parts.net, parts.relaxation
    alpha = list(relaxation.parameters())
    alpha_task = None if cfg.alpha_task is None else build(cfg.alpha_task)
    if alpha_task is not None and alpha_task.network_options() and not parts.task.network_options():
        raise UsageError("alpha_task.auxiliary_weight needs the head that task.auxiliary_weight brings, which is 0")
    w_optimizer, descent = descent_of(cfg, net)
    search = Bilevel(
        net, relaxation, build(cfg.hypergradient), parts.task, w_optimizer,
        build(cfg.alpha_optimizer)(params=alpha) if alpha else None, parts.generators, clip_norm=cfg.clip_norm,
        guard=Guard(net, parts.device, cfg.log_every, position,
                    lambda batch, otherwise: where_search_diverged(search, batch, otherwise), parts.group),
        penalties=[build(node)(space, cost) for node in cfg.penalty.values()],
        w_penalties=[build(node)(space) for node in cfg.w_penalty.values()], alpha_clip_norm=cfg.alpha_clip_norm,
        alpha_task=alpha_task, context=precision(cfg.amp, parts.device), descend=descent, group=parts.group,
        passes=None if cfg.passes is None else build(cfg.passes)(space, net))
    return search


def descent_of(cfg: DictConfig, net: nn.Module) -> tuple[torch.optim.Optimizer, Descent]:
    """The optimizer of a network's weights, and how they take its step. Raises ValueError: not in the way that is asked for."""
    optimizer = build(cfg.w_optimizer)(params=weight_groups(net, decay_norms_and_biases=cfg.decay_norms_and_biases))
    return optimizer, FlatDescent(optimizer) if cfg.flat_weights else descend


def where_search_diverged(search: Bilevel, batch: Batch, otherwise: str) -> str:
    """What was not finite first on a batch, `otherwise` where no output is, and what the search stood at."""
    with torch.no_grad():
        weights = search.relaxation(search.generators["alpha"])
    where = first_nonfinite(search.net, weights, batch, otherwise, generator=search.generators["net"])
    largest = max((p.abs().max().item() for p in search.relaxation.parameters()), default=0.0)
    return f"{where}; learning rate {search.w_optimizer.param_groups[0]['lr']:.4g}, largest |alpha| {largest:.4g}"


def captured(cfg: DictConfig, parts: SearchParts, search: Bilevel, monitors: Mapping[str, Monitor]) -> Graphed | None:
    """The steps of the search as CUDA graphs, where asked for. Raises ValueError: a part cannot be captured."""
    if cfg.compile != "graph":
        return None
    check_graphable(search, monitors.values(), parts.data.example(parts.device), cfg.sampled_graphs)
    return Graphed(search, batch_size=cfg.batch_size, capturing=Capturing(parts.device), kept=cfg.sampled_graphs)


def rehearse_search(loop: SearchLoop, make_w_optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    """Tries what a search is made of against each other, so that parts which do not fit say so (ValueError) before any work starts. Leaves
    the search as it is."""
    search, space = loop.search, loop.space
    check_interfaces(search, loop.monitors, loop.cost)
    check_ops(search.net, space)
    check_draws(search.relaxation, space, torch.Generator(loop.generators["alpha"].device))
    check_passes(search.passes, search.task, search.relaxation.samples(torch.Generator(loop.generators["alpha"].device)))
    with torch.no_grad():
        draw, mean = search.relaxation(torch.Generator(loop.generators["alpha"].device)), search.relaxation.mean()
    if any(w.skip is not None for w in draw.values()) and not has_auxiliary_skips(search.net):
        raise ValueError("wrapper=[auxiliary_skip] needs a network that has such connections: pass network={auxiliary_skip:true}")
    if search.relaxation.on_simplex and type(search.alpha_optimizer) is not ExponentiatedGradient:
        raise ValueError("architecture parameters on the simplex need optimizer@alpha_optimizer=exponentiated_gradient, got "
                         f"{type(search.alpha_optimizer).__name__}")
    rehearse(search.hypergradient, make_w_optimizer, draw.log_prob is not None)
    if search.w_penalties and not getattr(search.net, "kinds", ()):
        raise ValueError(f"a w_penalty needs a network of cells that share edge weights, got {type(search.net).__name__}")
    if search.penalties and not search.alpha:
        raise ValueError(f"penalties act on architecture parameters, and {type(search.relaxation).__name__} has none: pass penalty=[]")
    for penalty in search.penalties:
        check_scalar(f"penalty {type(penalty).__qualname__}", penalty(torch.ones(()), draw, search.relaxation))
    genotype = loop.select(mean)
    known = {*(f"train_{name}" for name in search.task.metrics({"loss": 1.0, "accuracy": 0.0})),
             *(f"val_{name}" for name in search.task.gives), *free_values(space, genotype, mean, loop.cost)}
    for monitor in loop.monitors.values():
        monitor.check(search, known)
        known |= set(monitor.gives)


@dataclass
class FinalParts:
    """A network of one architecture with its data, all that trains it, and the test part, to be read at the end."""

    device: torch.device
    data: Data
    loaders: FinalLoaders
    task: Task
    net: nn.Module
    loop: FinalLoop
    test: Loader
    backend: Backend
    fitted: str | None = None  # what `fit` or `doublings` has found, in words

    @property
    def met(self) -> Met:
        return Met.of(self.data, self.loaders)


@dataclass
class FinalRead:
    """What final trainings read, and what for. generators: of the split, of what a training draws, and of the loaders. group: the processes
    that train together."""

    data: Data
    loaders: FinalLoaders
    task: Task
    generators: Generators
    group: Group = ALONE

    @classmethod
    def streams(cls, seed: int, device: torch.device) -> Generators:
        return Generators.from_seed(seed, {"split": torch.device("cpu"), "net": device, "train": device})

    def restart(self, seed: int, device: torch.device) -> None:
        """For a training of another seed on the same images."""
        self.generators.load_state_dict(self.streams(seed, device).state_dict())
        self.loaders.train.restart()


def final_data(cfg: DictConfig) -> Data:
    """The data set, which has what it needs."""
    data = build(cfg.dataset.data)
    data.check()
    return data


def final_read(cfg: DictConfig, device: torch.device, group: Group = ALONE, data: Data | None = None) -> FinalRead:
    """The training part and what is held out of it; the test part is not opened. data: where it was made before."""
    generators, task = FinalRead.streams(cfg.seed, device), build(cfg.task)
    refuse_for_many(cfg, group)
    data = data or final_data(cfg)
    loaders = data.final(loading(cfg, device, group), split=cfg.split, generators=generators)
    if cfg.graph_augmentation:
        augment_in_graphs(Capturing(device), data, loaders.train)
    return FinalRead(data, loaders, task.for_classes(loaders.class_counts, device), generators, group)


def final_machine(cfg: DictConfig, group: Group = ALONE) -> tuple[torch.device, Backend]:
    """Where final trainings compute."""
    device = device_of(resolve_device(cfg.device), place())
    check_graph_augmentation(cfg, device)
    prepare(device, threads=cfg.threads, deterministic=cfg.deterministic, tf32=bool(cfg.tf32))
    if cfg.compile != "inductor":
        without_compiler()
    return device, backend_of(cfg, device, group)


def final_parts(cfg: DictConfig, space: Space, genotype: Genotype, group: Group = ALONE) -> FinalParts:
    device, backend = final_machine(cfg, group)
    settle_sizes(cfg, space)
    data, fitted = None, None
    if cfg.fit is not None or cfg.doublings is not None:
        fitted, data = choose_sizes(cfg, space, genotype, final_data, {"norm": final_norm(cfg), **network_options(cfg)})
    read = final_read(cfg, device, group, data)
    test = read.data.test(loading(cfg, device))  # opened now, so that a bad one fails now; read at the end, by the first process alone
    every_epoch = test if group.size == 1 else read.data.test(loading(cfg, device, group))
    loop = final_loop(cfg, space, genotype, read, device, test=every_epoch if cfg.report_test_every_epoch else None)
    return FinalParts(device, read.data, read.loaders, read.task, loop.net, loop, test, backend, fitted)


def final_norm(cfg: DictConfig) -> Normalisation:
    return final_normalisation(cfg.compat.pool_norm, cfg.compat.bn_statistics)


def final_loop(cfg: DictConfig, space: Space, genotype: Genotype, read: FinalRead, device: torch.device, *,
               test: Loader | None = None) -> FinalLoop:
    """What trains the network of one architecture, from the seed. test: what is evaluated after every epoch."""
    data, loaders = read.data, read.loaders
    net = network(cfg, space, space.candidates(genotype), data, final_norm(cfg), device, **read.task.network_options())
    normalise_together(cfg, net, read.group)
    refuse_lone_images(net, lambda net, x: net(x, None, generator=torch.Generator(device), **read.task.network_options()),
                       {"split.max_train": loaders.train}, data.example(device))
    if cfg.whiten_first:
        if loaders.sample is None:
            raise UsageError(f"whiten_first=true is for images, and {data.name} is read as {data.item}s: pass whiten_first=false")
        whiten(first_convolution(net), (images for images, _ in loaders.sample))
    own = None if cfg.space is None else space
    notes = [] if cfg.init is None else warm_start(net, data, genotype, cfg.init, own)
    teacher = None if cfg.teacher is None else teacher_from(cfg.teacher, data, device, own)
    return training_of(cfg, net, read, device, teacher=teacher, test=test, notes=notes)


def training_of(cfg: DictConfig, net: nn.Module, read: FinalRead, device: torch.device, *, teacher: TeacherOf | None = None,
                test: Loader | None = None, notes: Sequence[str] = ()) -> FinalLoop:
    """What trains `net`, a final network as it stands, as the options say. teacher: of which it learns beside the labels."""
    task, loaders, notes = read.task, read.loaders, list(notes)
    if teacher is not None:
        task = task.taught_by(teacher, cfg.distillation.temperature, cfg.distillation.weight)
        notes.append(f"teacher: {parameters(teacher.network) / 1e6:.3f} M parameters from {teacher.path}, which counts "
                     f"{cfg.distillation.weight:g}")
    position = Position()

    guard = Guard(net, device, cfg.log_every, position, lambda batch, otherwise: where_training_diverged(loop, batch, otherwise),
                  read.group)
    optimizer, descent = descent_of(cfg, net)
    loop = FinalLoop(
        net, task, optimizer, loaders.train, loaders.val, test=test, lr=cfg.w_optimizer.lr, schedule=build(cfg.w_schedule),
        drop_path_prob=cfg.drop_path_prob, clip_norm=cfg.clip_norm, generators=read.generators, guard=guard, totals=Totals(device),
        position=position, context=precision(cfg.amp, device), call=torch.compile(net) if cfg.compile == "inductor" else None,
        shift=int(cfg.compat.scheduler_step == "start"), average=build(cfg.average), descend=descent, group=read.group,
        lr_every_step=cfg.lr_every == "step", more={} if teacher is None else {"teacher": teacher}, notes=notes)
    return loop


def where_training_diverged(loop: FinalLoop, batch: Batch, otherwise: str) -> str:
    """As `where_search_diverged`."""
    where = first_nonfinite(loop.net, None, batch, otherwise, generator=loop.generators["net"])
    return f"{where}; learning rate {loop.optimizer.param_groups[0]['lr']:.4g}"


def example(parts: SearchParts | FinalParts) -> Tensor:
    """One input of the network, on its device."""
    return parts.data.example(parts.device)
