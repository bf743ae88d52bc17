"""The root options of the scripts and commands, by name, type and default. No torch is imported here, so that `--help` is quick."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Wandb:
    mode: str = "auto"  # auto, online, offline, disabled
    project: str | None = None  # null: WANDB_PROJECT, or supernet
    entity: str | None = None  # whose projects; null: WANDB_ENTITY, or the key's owner
    group: str | None = None  # null: what the runs that differ by their seeds alone have in common
    tags: list[str] = field(default_factory=list)  # beside space, data set and method
    timeout_s: float = 20.0  # for the server to answer


@dataclass
class Compat:
    """Where papers and official code differ; the defaults give the published numbers."""

    scheduler_step: str = "end"  # end: epoch e trains at lr(e); start: at lr(e + 1), as ports to torch >= 1.1 do
    bn_statistics: str = "running"  # running averages in evaluation (code), or the batch's own (paper)
    bn_affine: bool = False  # whether the candidates' batch norms learn factors and offsets in the search (code: not)
    pool_norm: str = "search"  # a batch norm without factors after pools: in the search network only (code), always, or never
    augment_val: bool = True  # alpha batches are augmented like training batches (code)


@dataclass
class Common:
    dataset: Any = MISSING
    protocol: Any = MISSING
    task: Any = MISSING
    decay_norms_and_biases: bool = True  # false: w_optimizer.weight_decay is of what has more than one dimension alone
    w_optimizer: Any = MISSING
    w_schedule: Any = MISSING
    experiment: Any = None
    seed: int = 0
    epochs: int = MISSING
    batch_size: int = MISSING
    eval_batch_size: int = 256
    layers: int = MISSING
    channels: int = MISSING
    network: Any = None  # what else the builder of the space's networks takes, {name: value}
    clip_norm: float | None = MISSING
    lr_minimum: float = MISSING  # where a cosine or linear schedule ends
    compat: Compat = field(default_factory=Compat)
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    threads: int | None = None  # of the CPU; null: torch's choice
    workers: int = 0  # processes that decode images which do not fit in memory
    channels_last: bool = True
    backend: str = "auto"  # auto, plain, native, packed, merged: who computes; native: channels_last, with a C++ compiler or Triton
    deterministic: bool = False  # on a GPU: the same bits again, at some cost
    amp: str = "none"  # none; bf16: networks compute in it where it is safe, weights, alphas and statistics stay in float32
    tf32: bool = False  # on a GPU: products of float32 with 10 bits of mantissa, faster
    compile: str = "none"  # of a search: none, graph (steps as CUDA graphs); of a final network: none, inductor (torch.compile)
    graph_augmentation: bool = False  # on a GPU: what is done to a batch of images as one CUDA graph, which draws the same
    synchronised_norms: bool = False  # of several processes: batch norms go by the whole batch, not by each process's part
    flat_weights: bool = False  # weights, gradients and momenta in one buffer each: the step of SGD takes fewer operations
    checkpoint_cells: bool = False  # keep only cells' inputs for the backward pass and compute the rest again: less memory, more time
    output: str = "runs"
    name: str | None = None
    resume: str = "never"  # never, auto, or a run's folder
    extend: str | None = None  # the folder of a run that goes on for more epochs, in a folder of its own
    dry_run: bool = False
    log_every: int = 50  # steps between looks at the loss on a GPU
    keep_checkpoints: int = 2  # the newest so many stay; with more of them `python -m supernet.rank checkpoints=all` looks back
    checkpoint_every_s: float = 60.0  # seconds between checkpoints within an epoch
    background_checkpoints: bool | None = None  # what moves is copied and a thread writes it; null: on a GPU
    wandb: Wandb = field(default_factory=Wandb)


@dataclass
class SearchSplit:
    mode: str = MISSING  # index_order, stratified, shuffled
    train_portion: float = MISSING  # of the training images; the rest trains the alphas
    portion: float = 1.0  # of the training images that take part at all; with mode=stratified, of each class
    max_train: int | None = None
    max_val: int | None = None
    shared: bool = False  # all training images for the weights and for the alphas, each in batches of their own


@dataclass
class FinalSplit:
    mode: str = MISSING
    val_portion: float = MISSING  # of the training images, held out for validation; may be 0
    max_train: int | None = None
    max_val: int | None = None


@dataclass
class Staged:
    """The stages of a search. Where an option is null, the root's is every stage's; one value is all stages', a list has one for each."""

    keep: list[int] = field(default_factory=list)  # candidates that an edge keeps after each stage but the last; []: one stage
    open: list[Any] = field(default_factory=list)  # instead, for each stage {kind of decision: choices that there are from then on, or all}
    sort: Any = None  # with `open`: whether the stage begins with sorted channels
    lr: Any = None  # w_optimizer.lr
    epochs: Any = None  # of each stage; `epochs` becomes their sum
    layers: Any = None
    channels: Any = None
    alpha_begin: Any = None
    skip_dropout: Any = None  # skip_dropout.prob
    network: Any = None  # {name: value}
    inherit: str = "none"  # weights: a stage goes on with the weights, alphas and optimizers of the one before; none: it starts anew
    schedules: str = "stage"  # what learning rates, annealing and drop path run over: each stage, or the whole search


@dataclass
class TrialBudget:
    """What a search by trials may spend, beside the supernet's epochs; null: as much as it likes, but one must be given."""

    trials: int | None = None
    images: int | None = None  # in training and evaluation
    wall_s: float | None = None
    simulated_s: float | None = None  # what a table says that trainings take


@dataclass
class SearchConfig(Common):
    script: str = "search"  # whose half of the protocol is read
    profile: Any = None
    space: Any = MISSING
    exclude_ops: list[str] = field(default_factory=list)  # of the space's, left out of the search; genotypes stay those of the space
    relaxation: Any = MISSING
    wrapper: dict[str, Any] = field(default_factory=dict)  # of the relaxation, by name, the first innermost
    hypergradient: Any = MISSING
    penalty: dict[str, Any] = field(default_factory=dict)  # on the alpha loss, by name, in this order
    w_penalty: dict[str, Any] = field(default_factory=dict)  # on the loss of the weights' step, by name
    passes: Any = None  # which architectures a step of the weights runs; null: the one that is drawn
    monitor: dict[str, Any] = field(default_factory=dict)  # by name
    cost: Any = None  # for the penalties and selections that ask for one
    select: Any = MISSING
    final_select: Any = None  # how the genotype is found at the end; null: by `select`
    searcher: Any = None  # decides the genotype by trials, after the epochs, in place of select and final_select; null: these do
    evaluator: Any = MISSING  # of its trials
    objective: Any = MISSING  # what its trials are scored by
    budget: TrialBudget = field(default_factory=TrialBudget)
    repeats: str = "free"  # of what was evaluated before: free, it is read and costs a trial alone; paid, it costs as much again
    patience: int = 100  # repeats in a row, after which one is drawn at random
    learned: int = 0  # so many first trials are of what the relaxation has learned: its argmax, then draws
    processes: int = 1  # that evaluate trials
    table: Any = None
    alpha_task: Any = None  # what the alphas are trained for; null: `task`
    alpha_optimizer: Any = MISSING
    alpha_schedule: Any = MISSING
    alpha_begin: int = 0  # epochs of weights alone
    alpha_every: int = 1  # steps of the weights for each of the alphas
    alpha_clip_norm: float | None = None
    drop_path_prob: float = 0.0  # of the supernet, in the last epoch
    drop_path_rises: bool = True  # from 0 in the first epoch, in a straight line; false: the same in all epochs
    skip_dropout: Any = None  # of candidate skip connections, by epoch (a function)
    stage: Staged = field(default_factory=Staged)
    split: SearchSplit = field(default_factory=SearchSplit)
    retrain: str | None = None  # the protocol that the authors train such cells by, for train_final.py to name; null: the data set's
    sampled_graphs: int = 0  # with compile=graph, of a relaxation that draws ops: graphs kept, one for each set of ops; 0: it is refused
    alpha_snapshots: int = 20  # of the alphas, an epoch, for the record; fewer in a search of more than 100 epochs (2,000 in all)


@dataclass
class Distilled:
    """How a training learns of its `teacher`."""

    temperature: float = 4.0  # that softens both networks' probabilities
    weight: float = 0.9  # of the teacher; the labels have the rest


@dataclass
class FinalConfig(Common):
    script: str = "final"
    genotype: str = "latest"  # a file, a published name, or the newest search under `output`
    space: Any = None  # null: the space that the genotype names
    split: FinalSplit = field(default_factory=FinalSplit)
    fit: str | None = None  # multiply_adds:600e6 or parameters:3e6: layers and channels that meet it, where the command line names none
    doublings: float | None = None  # so many doublings of multiply-adds from the protocol's sizes, by EfficientNet's rule; null: none
    free_resolution: bool = False  # whether `fit` and `doublings` may change the size of a data set's images, where these are files
    recipe: str = MISSING  # its name, for the record: chosen as recipe=...
    drop_path_prob: float = MISSING
    average: Any = MISSING  # of the weights over training
    lr_every: str = "epoch"  # when the learning rate moves: epoch or step
    init: str | None = None  # a run's folder or weights.pt whose weights are begun with: of the genotype, or of a search in its space
    teacher: str | None = None  # a run's folder or weights.pt whose network teaches this one beside the labels
    distillation: Distilled = field(default_factory=Distilled)
    whiten_first: bool = False  # the first convolution begins with filters that whiten the training images
    report_test_every_epoch: bool = MISSING


@dataclass
class CompressConfig:
    run: str | None = None  # the folder of a final training; may stand alone, without `run=`
    trust: list[str] = field(default_factory=list)  # what the run's options may name beside what conf/ names, `my_space.make`
    method: Any = field(default_factory=lambda: ["prune", "magnitude", "int8"])  # some of prune, magnitude, int8, qat, and prune+int8 ...
    share: float = 0.5  # of prune: of the channels that are taken out
    sparsity: float = 0.8  # of magnitude: of the weights that become zero
    calibration: int = 256  # of int8: training images on which the ranges of activations are found
    calibrate: str = "minmax"  # of int8, how: minmax, entropy, percentile
    qat_minutes: float = 10.0  # that a training in 8 bits may take
    epochs: int | None = None  # of training further; null: a fifth of the run's
    lr: float | None = None  # that it begins with; null: a tenth of the run's
    distil: bool = False  # what is trained further learns of a teacher too
    teacher: str | None = None  # a run's folder or weights.pt; null: the network itself as it was trained
    distillation: Distilled = field(default_factory=Distilled)
    seed: int = 0
    device: str = "auto"  # of training further; sizes and times are the CPU's
    threads: int | None = None  # null: the run's
    output: str | None = None  # null: compressed, in the run's folder
    dry_run: bool = False


@dataclass
class DeployConfig:
    run: str | None = None  # the folder of a search in a chain of decisions; may stand alone, without `run=`
    trust: list[str] = field(default_factory=list)  # what the run's options may name beside what conf/ names, `my_space.make`
    limits: Any = None  # {parameters:1e6, multiply_adds:..., peak_memory: bytes, latency_ms:...}; a value sweep: a front over it
    points: int = 5  # of a front
    measure: str = "here"  # latency_ms: on this machine; or a file of a latency table
    device_table: str | None = None  # a table of architectures of the space, of which `columns` may be limited
    columns: Any = None  # {name: the table's column}
    by: str = "evolution"  # evolution, gradient, exact
    score: str = "accuracy"  # accuracy, loss: on the validation part, with the supernet's weights
    samples: int = 100  # architectures that are evaluated for all limits alike, once
    trials: int = 100  # of evolution, for each limit
    candidates: int = 10  # of exact: sums that are evaluated, for each limit
    gradient_steps: int = 150  # of gradient, for each limit
    measured: int = 60  # architectures from whose latency or memory a model is made
    latency_batch: int = 1  # images of a call
    max_val: int | None = None  # validation images that architectures are judged on; null: all
    calibration_batches: int = 10  # of training images, for the statistics of norms
    epochs: int = 0  # of training the result further
    lr: float | None = None  # that it begins with; null: a tenth of what final trainings begin with
    distil: bool = False  # what is trained further learns of the largest sub-network too
    distillation: Distilled = field(default_factory=Distilled)
    seed: int = 0
    device: str = "auto"  # that architectures are evaluated on; times and memory are the CPU's
    threads: int | None = None  # null: the run's
    name: str | None = None  # of the result's folder; null: made of the limits
    output: str | None = None  # null: deployed, in the run's folder
    dry_run: bool = False


@dataclass
class RankConfig:
    run: str | None = None  # the folder of a search
    trust: list[str] = field(default_factory=list)  # what the run's options may name beside what conf/ names, `my_space.make`
    options: Any = None  # without a run: those of train_search.py that make the networks, {name: value}
    table: Any = MISSING
    by: list[str] = field(default_factory=lambda: ["shared_weights"])  # and names of proxies
    proxy: dict[str, Any] = field(default_factory=dict)  # by name; chosen here as well where their options are to change
    truth: str | None = None  # a data set of the table; null: the run's, else the first it has
    n: int = 100
    statistics: str = "recalibrated"  # recalibrated, batch, running
    calibration_batches: int = 20
    max_val: int | None = 1000  # validation images that an architecture is evaluated on
    proxy_batch: int = 64
    checkpoints: str = "last"  # last, all
    resamples: int = 1000
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    output: str | None = None  # null: the run's folder, or `rank`


@dataclass
class ReproduceConfig:
    paper_table: str | None = None  # said as `table=`: of conf/published, or a file that ends in .yaml
    scale: str = "paper"  # of the table's
    rows: list[str] | None = None  # by name; null: all
    searches: int | None = None  # from so many seeds a row; null: the scale's
    retrainings: int | None = None  # of the architecture that is picked; null: the scale's
    root: str = "data"  # where data sets are
    lookup: str = "auto"  # a table of trained architectures (docs/tables.md), where the columns are read from one
    options: Any = None  # further ones of every search and training, {name: value}
    launcher: Any = None
    retry: str = "none"  # none, failed
    max_failures: int | None = None
    level: float = 0.95  # of the intervals
    seed: int = 0  # of the resampling
    dry_run: bool = False  # what would be begun with
    output: str | None = None  # null: runs/<table>_<scale>


@dataclass
class RaceConfig:
    space: Any = MISSING
    table: Any = MISSING
    objective: Any = MISSING
    searchers: list[str] = field(default_factory=lambda: ["random", "regularised_evolution", "reinforce"])
    options: Any = None  # of searchers, {searcher: {option: value}}
    datasets: list[str] = field(default_factory=list)  # of the table; []: all it has
    columns: Any = None  # what else is known of an architecture, {metric: the table's column}
    seeds: int = 500  # searches with each searcher on each data set, from seed 0
    trials: int | None = None  # of a search
    simulated_s: float | None = 12_000.0  # of a search, in seconds of the benchmark's machines
    repeats: str = "paid"  # what was evaluated before costs as much again (paid, as in the benchmarks' own codes), or nothing (free)
    patience: int = 100  # repeats in a row, after which one is drawn at random
    processes: int = 1
    level: float = 0.95  # of intervals
    resamples: int = 10_000
    output: str | None = None  # null: races/<space>


@dataclass
class TabulateConfig:
    space: Any = MISSING
    dataset: Any = MISSING
    training: dict[str, Any] = field(default_factory=dict)  # options of train_final.py, for every training
    options: Any = None  # further ones, {name: value}
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    processes: int = 1
    n: int | None = None  # architectures drawn at random, for a space that is too large; null: all
    limit: int = 20_000  # the largest space of which all are accepted
    output: str | None = None  # null: data/tables/<space>.csv.gz


@dataclass
class SweepSelect:
    """Which searches are retrained."""

    by: str = "val_accuracy"  # a name in the values of summary.json
    best: int | None = None  # of each point, over its seeds; null: all
    order: str = "largest"  # is the best; or smallest


@dataclass
class SweepRetrain:
    """What train_final.py does with what the searches found."""

    fixed: dict[str, Any] = field(default_factory=dict)  # options of all; those of the search that say of the data are carried over
    axes: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])  # of each retraining


@dataclass
class SweepConfig:
    script: str = "train_search"  # or train_final
    name: str | None = None  # of the sweep; null: that of its file
    fixed: dict[str, Any] = field(default_factory=dict)  # options of all jobs, {name: value}
    axes: dict[str, Any] = field(default_factory=dict)  # {option: [values]}, or {title: {name: {option: value, ...}, ...}}
    seeds: list[int] = field(default_factory=lambda: [0])
    select: SweepSelect = field(default_factory=SweepSelect)
    retrain: SweepRetrain | None = None  # null: nothing is retrained
    launcher: Any = MISSING
    output: str | None = None  # null: runs/<name>
    retry: str = "none"  # failed: those that failed before are run again, and no others
    max_failures: int | None = None  # with one more, the others are stopped
    dry_run: bool = False  # lists the jobs and how they stand
    sweep_file: Any = None  # chosen by the command itself: the file's content
