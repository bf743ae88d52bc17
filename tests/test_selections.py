"""How genotypes are selected beyond argmax: thresholds, limited skips, perturbation, samples."""

import copy
import itertools
import random

import pytest
import torch

from supernet.app import compose
from supernet.evaluators.shared_weights import SharedWeights
from supernet.genotype import Edge
from supernet.optim.schedules import Cosine, SkipDropout
from supernet.relaxations.sigmoid import Sigmoid
from supernet.relaxations.softmax import Softmax
from supernet.select import perturbation
from supernet.select.argmax import argmax
from supernet.select.limited_skips import limited_skips
from supernet.select.perturbation import Perturbation
from supernet.select.sampled import Sampled
from supernet.select.threshold import threshold
from supernet.select.within_cost import WithinCost
from supernet.spaces import darts, nasbench201
from supernet.training.evaluate import evaluate
from supernet.training.stages import fit_stages, narrowed
from supernet.weights import EdgeWeights, Weights
from tests import planted
from tests.planted import TASK
from tests.runs import exactly
from tests.searches import Records, composed, searched

FAIR = darts.make(ops=darts.OPS[1:], edges_per_node=[0, 2])


def official_parse(weights, limit, ops):
    """`parse` of FairDARTS' utils.py, threshold_sparse: of a node's two strongest edges those whose strongest op reaches the limit."""
    gene, start = set(), 0
    for i in range(4):
        rows = weights[start: start + i + 2]
        for j in sorted(range(i + 2), key=lambda j: -max(rows[j]))[:2]:
            best = max(range(len(ops)), key=lambda k: rows[j][k])
            if rows[j][best] >= limit:
                gene.add((i + 2, j, ops[best]))
        start += i + 2
    return gene


@pytest.mark.equation("fair_darts")
@pytest.mark.parametrize("seed", range(10))
def test_threshold_is_the_official_parse(seed):
    relaxation = Sigmoid(FAIR, torch.Generator().manual_seed(seed), init_scale=2.0)
    genotype = threshold(FAIR, relaxation.mean(), value=0.85)
    FAIR.validate(genotype)
    for kind, w in relaxation.mean().items():
        assert set(genotype[kind]) == official_parse(w.ops.detach().double().tolist(), 0.85, FAIR.cells[kind].ops)
    table = torch.full((14, 7), 0.1, dtype=torch.float64)
    table[:2, 3] = torch.tensor([0.85, 0.8499999])  # the limit itself counts
    assert len(threshold(FAIR, EdgeWeights({k: Weights(table) for k in FAIR.cells}), value=0.85)["normal"]) == 1


def test_threshold_ranks_edges_by_their_own_weights_too():
    table = torch.full((14, 7), 0.1)
    table[:, 3] = 0.9
    edges = torch.ones(14)
    edges[2] = 0.01  # of the three into the second node
    weights = EdgeWeights({kind: Weights(table, edges) for kind in FAIR.cells})
    kept = [e.source for e in threshold(FAIR, weights, value=0.85)["normal"] if e.destination == 3]
    assert kept == [1, 2] and kept == [e.source for e in argmax(FAIR, weights)["normal"] if e.destination == 3]


def official_limit(alpha, ops, most):
    """P-DARTS' train_search.py after the last stage: `none` is taken out, each edge keeps its strongest op, each node its two strongest
    edges; while there are too many skips in a cell, the least probable of them is set to 0 and the cell is put together again."""
    probs = alpha.softmax(-1).clone()
    probs[:, ops.index("none")] = 0
    while True:
        gene, start = [], 0
        for i in range(4):
            rows = probs[start: start + i + 2]
            strongest = rows.max(1).values.tolist()
            for j in sorted(range(i + 2), key=lambda j: -strongest[j])[:2]:
                gene.append((start + j, i + 2, j, ops[int(rows[j].argmax())]))
            start += i + 2
        skips = [row for row, _, _, op in gene if op == "skip_connect"]
        if len(skips) <= most:
            return {entry[1:] for entry in gene}
        o = ops.index("skip_connect")
        probs[min(skips, key=lambda row: probs[row, o].item()), o] = 0


@pytest.mark.equation("p_darts")
@pytest.mark.parametrize("seed", range(10))
def test_limited_skips_are_those_of_the_official_code(seed):
    space = darts.make()
    relaxation = Softmax(space, torch.Generator().manual_seed(seed), init_scale=1.0).double()
    ops = list(darts.OPS)
    with torch.no_grad():
        for alpha in relaxation.alpha.values():
            alpha[:, ops.index("skip_connect")] += 1.5  # skips enough to be limited
    free = argmax(space, relaxation.mean())
    for most in (0, 2, 8):
        genotype = limited_skips(space, relaxation.mean(), most=most)
        space.validate(genotype)
        assert set(genotype["normal"]) == official_limit(relaxation.alpha["normal"].detach(), ops, most)
        assert genotype["reduce"] == free["reduce"], "the official code limits normal cells alone"
    assert sum(e.op == "skip_connect" for e in free["normal"]) > 2
    with pytest.raises(ValueError, match="no candidate but a skip"):
        limited_skips(darts.make(ops=["none", "skip_connect"]), Softmax(darts.make(ops=["none", "skip_connect"]), torch.Generator()).mean())
    lone = narrowed(space, {kind: tuple(tuple(name in ("none", "skip_connect") or e % 2 == 1 for name in ops) for e in range(14))
                            for kind in space.cells})
    genotype = limited_skips(lone, relaxation.mean(), most=2)  # the odd edges have other ops, and come before the others
    assert sum(e.op == "skip_connect" for e in genotype["normal"]) <= 2
    other = nasbench201.make()
    with pytest.raises(ValueError, match=r"select.kinds must be among cell in space nasbench201, got \['normal'\]"):
        limited_skips(other, Softmax(other, torch.Generator()).mean())


@pytest.mark.equation("p_darts")
def test_the_dropout_of_skips_falls_as_in_the_official_code():
    """In a straight line in the first ten epochs of a stage, where weights alone are trained, then exponentially from its start again."""
    schedule = SkipDropout(0.4)
    for epoch in range(25):
        expected = 0.4 * (25 - epoch - 1) / 25 if epoch < 10 else 0.4 * 2.718281828459045 ** (-(epoch - 10) * 0.2)
        assert schedule(epoch, 25) == pytest.approx(expected)
    with pytest.raises(ValueError, match="prob must be at least 0 and below 1"):
        SkipDropout(1.0)


# ---- perturbation


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    path = tmp_path_factory.mktemp("selections") / "stripes.npz"
    planted.write_images(path)
    return path


def trained(stripes, *options):
    """A search of the planted task whose alphas rested while the weights were trained."""
    stages = compose.search_stages(cfg := composed(*TASK, f"dataset.path={stripes}", "epochs=6", "alpha_begin=99", *options),
                                   compose.search_parts(cfg))
    fit_stages(stages, Records())
    return stages.loop


@pytest.mark.equation("darts_pt")
def test_perturbation_finds_a_planted_op_that_argmax_misses(stripes):
    loop = trained(stripes)
    ops = loop.space.cells["cell"].ops
    alpha = {"skip_connect": 2.0, "avg_pool_3x3": 0.0, "nor_conv_3x3": -1.0}  # the network cannot do without the least of them
    with torch.no_grad():
        for op, value in alpha.items():
            loop.search.relaxation.alpha["cell"][0, ops.index(op)] = value
    by_weight = argmax(loop.space, loop.search.relaxation.mean())
    assert {(e.source, e.destination): e.op for e in by_weight["cell"]}[0, 1] == "skip_connect" and not planted.solved(by_weight)
    assert planted.solved(Perturbation(finetune_epochs=1)(loop))


def finetuned(loop, **options):
    """The learning rates and whether alphas were trained, step by step, and how many momenta there were."""
    search, lrs, trains, momenta = loop.search, [], [], []
    step = search.step

    def spied(train_batch, val_batch):
        lrs.append(search.w_optimizer.param_groups[0]["lr"])
        momenta.append(sum(v["momentum_buffer"] is not None for v in search.w_optimizer.state.values()))
        trains.append(val_batch is not None)
        return step(train_batch, val_batch)

    search.step = spied
    Perturbation(**options)(loop)
    return lrs, trains, momenta


@pytest.mark.equation("darts_pt")
@pytest.mark.parametrize("train_alpha", [True, False])
def test_fine_tuning_goes_on_at_a_constant_tenth_of_the_learning_rate_with_a_fresh_optimizer(stripes, train_alpha):
    """Between decisions, none after the last; alphas trained or not."""
    loop = trained(stripes, "alpha_optimizer.lr=0.05")
    relaxation, alphas = loop.search.relaxation, [p.detach().clone() for p in loop.search.alpha]
    lrs, trains, momenta = finetuned(loop, finetune_epochs=2, train_alpha=train_alpha)
    pauses = 2  # three edges are decided; the node keeps both of its own
    assert lrs == pytest.approx([0.1 * loop.lr[0]] * pauses * 2 * len(loop.train))
    assert momenta[0] == 0 and momenta[-1] > 0 and set(trains) == {train_alpha}
    assert train_alpha != all(torch.equal(p, q) for p, q in zip(alphas, loop.search.alpha))
    assert loop.search.relaxation is relaxation


@pytest.mark.equation("darts_pt")
def test_fine_tuning_may_fall_along_a_cosine_and_be_shorter_before_the_last_decision(stripes):
    loop = trained(stripes)
    lrs, _, _ = finetuned(loop, finetune_epochs=2, finetune_last=1, schedule="cosine", lr_minimum=0.002)
    assert lrs == pytest.approx([Cosine(0.002)(0.01, epoch, 4) for epoch in range(3) for _ in range(len(loop.train))])


@pytest.mark.equation("darts_pt")
def test_perturbed_accuracies_use_the_statistics_of_each_batch_and_leave_the_supernets_own(stripes):
    loop = trained(stripes)
    for norm in loop.search.norms:  # with these no network tells anything apart
        if norm.running_mean is not None:
            norm.running_mean.fill_(1e6)
    kept = [norm.running_mean.clone() for norm in loop.search.norms]
    assert planted.solved(Perturbation(finetune_epochs=0)(loop))
    assert all(torch.equal(a, norm.running_mean) and not norm.by_batch for a, norm in zip(kept, loop.search.norms))
    with pytest.raises(ValueError, match="final_select.statistics"):
        Perturbation(statistics="recalibrated")


@pytest.mark.equation("darts_pt")
def test_edges_are_kept_whose_absence_costs_most():
    """Node by node, against the obvious: the accuracy without each edge, the lowest two kept."""
    from supernet.select.perturbation import Decided

    space = darts.make(nodes=2, ops=("skip_connect", "sep_conv_3x3"))
    relaxation = Softmax(space, torch.Generator().manual_seed(0), init_scale=1.0)
    settled = Decided(relaxation, space)
    losses = torch.tensor([5.0, 1.0, 4.0, 9.0, 2.0])

    def accuracy(weights):  # each edge is worth something on its own
        return (weights["normal"].ops.sum(1) * losses).sum().item()

    for e in range(5):
        settled.decide_op("normal", e, accuracy)
        assert settled.rows["normal"][e] == int(relaxation.mean()["normal"].ops[e].argmax()), "the op whose absence costs most"
        settled.decide_op("reduce", e, accuracy)
    settled.decide_edges("normal", 1, accuracy)
    settled.decide_edges("reduce", 1, lambda weights: 0.0)
    kept = {(e.destination, e.source) for e in settled.genotype()["normal"]}
    assert kept == {(2, 0), (2, 1), (3, 0), (3, 1)}
    table = settled.mean()["normal"]
    assert table.ops.sum(1).tolist() == [1.0, 1.0, 1.0, 1.0, 0.0] and table.active[4] == (False, False)


SMALL = ("split.max_train=48", "split.max_val=32", "space.nodes=2", "space.ops=[none,skip_connect,sep_conv_3x3,max_pool_3x3]",
         "space.edges_per_node=1", "layers=3", "channels=4", "batch_size=16", "table=none", "threads=1", "epochs=2")


def loop_of(*options):
    """A searched loop, before its final selection."""
    stages, _, _ = searched(*SMALL, *options)
    return stages.loop


def slowly(loop, order):
    """DARTS-PT's projection without training in between, with a fresh table of weights for every question. order: by kind, edges, nodes."""
    space, net = loop.space, loop.search.net
    plain = {kind: w.ops.detach() for kind, w in loop.search.relaxation.mean().items()}
    fixed = {kind: {} for kind in space.cells}
    gone = {kind: set() for kind in space.cells}

    def accuracy(kind=None, e=None, columns=()):
        tables = {}
        for k, spec in space.cells.items():
            table = plain[k].clone()
            for row, o in fixed[k].items():
                table[row] = torch.eye(len(spec.ops))[o]
            for row in gone[k]:
                table[row] = 0.0
            if k == kind:
                table[e, list(columns)] = 0.0
            tables[k] = table
        for norm in loop.search.norms:
            norm.by_batch = True
        try:
            weights = EdgeWeights({k: Weights(t) for k, t in tables.items()})
            return evaluate(net, loop.search.task, loop.drawn(None), lambda: weights, torch.Generator())["accuracy"]
        finally:
            for norm in loop.search.norms:
                norm.by_batch = False

    for n in range(5):
        for kind, spec in sorted(space.cells.items()):
            e = order[kind][0][n]
            allowed = [o for o, ok in enumerate(spec.selectable[e]) if ok]
            scores = {o: accuracy(kind, e, [o]) for o in allowed}
            fixed[kind][e] = min(allowed, key=scores.__getitem__)
    for n in range(2):
        for kind, spec in sorted(space.cells.items()):
            rows = spec.incoming(spec.nodes[order[kind][1][n]])
            scores = {e: accuracy(kind, e, range(len(spec.ops))) for e in rows}
            gone[kind] |= set(rows) - {min(rows, key=scores.__getitem__)}
    return space.genotype({kind: [Edge(spec.edges[e][1], spec.edges[e][0], spec.ops[o]) for e, o in fixed[kind].items()
                                  if e not in gone[kind]] for kind, spec in space.cells.items()})


@pytest.mark.equation("darts_pt")
@pytest.mark.parametrize("seed", range(2))
def test_perturbation_decides_as_the_procedure_written_out(seed):
    loop = loop_of(f"seed={seed}")
    loop.drawn = lambda batch_size: loop.val  # the same for every question
    g = torch.Generator()
    g.set_state(loop.generators["alpha"].get_state())
    draws = {phase: {kind: torch.randperm(n, generator=g).tolist() for kind in sorted(loop.space.cells)}
             for phase, n in (("edges", 5), ("nodes", 2))}
    expected = slowly(loop, {kind: (draws["edges"][kind], draws["nodes"][kind]) for kind in loop.space.cells})
    net = exactly(loop.search.net.state_dict())
    assert Perturbation(finetune_epochs=0)(loop) == expected
    assert exactly(loop.search.net.state_dict()) == net, "questions leave weights and running statistics alone"
    assert type(loop.search.relaxation) is Softmax


@pytest.mark.equation("darts_pt")
def test_accuracies_of_perturbation_are_of_batches_like_those_of_alpha(monkeypatch):
    """As the official code's, whose `proj_queue` is the queue of alpha: of the search's size, shuffled, augmented, another pass for every
    question. They were plain ones of eval_batch_size, and batch statistics make that another number."""
    loop, seen = loop_of("eval_batch_size=32", "dataset.augment.pad=2"), []

    def told(net, task, batches, *how):
        seen.append(list(batches))
        return {"accuracy": 1.0}

    monkeypatch.setattr(perturbation, "evaluate", told)
    kept = loop.alpha_batches.state_dict()
    Perturbation(finetune_epochs=0)(loop)
    assert all([len(y) for _, y in batches] == [16, 16] for batches in seen) and len(seen) > 10
    plain = torch.cat([x for x, _ in loop.val])
    assert all(not torch.equal(torch.cat([x for x, _ in batches]).sum(0), plain.sum(0)) for batches in seen)
    assert len({y.tolist().__str__() for ((_, y), _) in seen}) > 1, "in another order"
    assert exactly(loop.alpha_batches.state_dict()) == exactly(kept), "alpha's own batches wait"
    seen.clear()
    Perturbation(finetune_epochs=0, batch_size=8, val_batches=3)(loop)
    assert all([len(y) for _, y in batches] == [8, 8, 8] for batches in seen)
    with pytest.raises(ValueError, match="^batch_size must be at least 1"):
        Perturbation(batch_size=0)


def test_perturbation_tells_how_far_it_is_and_may_be_interrupted():
    loop = loop_of()
    loop.recorder = records = Records()
    Perturbation(finetune_epochs=0)(loop)
    assert [line[:31] for line in records.lines] == [f"decision {n} of 7: validation acc"[:31] for n in range(1, 8)]
    Perturbation(finetune_epochs=1)(loop)
    steps = len(loop.train)
    assert records.done == [(n, steps, f"steps after decision {k}") for k in range(1, 7) for n in range(steps)]

    class Stops(Records):
        def working(self, done=0, total=0, item=""):
            raise KeyboardInterrupt

    loop.recorder = Stops()
    with pytest.raises(KeyboardInterrupt):
        Perturbation()(loop)
    assert type(loop.search.relaxation) is Softmax
    with pytest.raises(KeyboardInterrupt):
        Sampled(n=5)(loop)
    assert not any(norm.by_batch for norm in loop.search.norms)


@pytest.mark.equation("darts_pt")
def test_the_preset_searches_the_space_of_the_paper():
    cfg = composed("experiment=darts_pt_cifar10")
    assert "none" not in cfg.space.ops and len(cfg.space.ops) == 7
    assert (cfg.final_select.finetune_epochs, cfg.final_select.finetune_last, cfg.final_select.lr_factor) == (5, None, 0.1)
    assert cfg.final_select.schedule == "constant"
    assert composed("experiment=darts_pt_nasbench201").final_select.finetune_last == 4


# ---- the best of samples


@pytest.mark.equation("random_ws", "spos")
@pytest.mark.parametrize("statistics", ["batch", "recalibrated"])
def test_the_best_sample_is_the_best_of_all_architectures_where_all_are_drawn(statistics):
    cfg = composed("space=toy", "relaxation=uniform", "split.max_train=32", "split.max_val=64", "batch_size=16", "layers=3", "channels=4",
                   "epochs=1", "table=none", "threads=1")
    stages = compose.search_stages(cfg, compose.search_parts(cfg))
    fit_stages(stages, Records())
    loop = stages.loop
    state, place = loop.generators.state_dict(), loop.train.state_dict()
    loop.recorder = Records()
    found = Sampled(n=600, screen_batches=1, finalists=27, statistics=statistics, calibration_batches=2)(loop)
    assert loop.recorder.done == [(n, 27, item) for item in ("sampled architectures", "finalists") for n in range(28)]
    loop.generators.load_state_dict(state), loop.train.load_state_dict(place)
    calibration = list(itertools.islice(loop.train, 2))
    evaluate = SharedWeights(loop.search.net, loop.space, loop.search.task, list(loop.val), loop.generators["net"], statistics=statistics,
                             calibration=calibration)
    scores = {genotype: evaluate(genotype)["accuracy"] for genotype in loop.space.enumerate()}
    assert len(scores) == 27 and len(set(scores.values())) > 3
    assert scores[found] == max(scores.values())


@pytest.mark.equation("enas")
def test_samples_of_what_was_learned_come_from_the_relaxation():
    cfg = composed("space=toy", "relaxation=controller", "hypergradient=reinforce", "split.max_train=32", "split.max_val=32",
                   "batch_size=16", "layers=3", "channels=4", "epochs=1", "table=none", "threads=1")
    loop = compose.search_stages(cfg, compose.search_parts(cfg)).loop
    with torch.no_grad():  # a controller that knows what it wants
        loop.search.relaxation.op_tanh = 50.0
        loop.search.relaxation.head.bias.copy_(torch.tensor([-3.0, 3.0, -3.0]))
    found = Sampled(n=20, source="relaxation")(loop)
    assert {e.op for e in found["cell"]} == {"skip_connect"}
    with pytest.raises(ValueError, match="final_select.source"):
        Sampled(source="table")


@pytest.mark.equation("spos", "random_ws")
def test_paths_are_drawn_uniformly():
    """Each of NAS-Bench-201's ops on each edge a fifth of the time, and edges apart."""
    from supernet.relaxations.uniform import Uniform

    space = nasbench201.make()
    relaxation, g = Uniform(space, torch.Generator()), torch.Generator().manual_seed(0)
    tables = torch.stack([relaxation(g)["cell"].ops for _ in range(3000)])
    assert (tables.mean(0) - 0.2).abs().max() < 4 * (0.2 * 0.8 / 3000) ** 0.5
    together = torch.einsum("nio,njp->iojp", tables, tables) / 3000
    for i in range(6):
        for j in range(i):
            assert (together[i, :, j] - 0.04).abs().max() < 4.5 * (0.04 * 0.96 / 3000) ** 0.5
    torch.testing.assert_close(relaxation.mean()["cell"].ops, torch.full((6, 5), 0.2))
    sampled = {space.text(space.sample(random.Random(n))) for n in range(50)}
    assert len(sampled) > 45


@pytest.mark.parametrize("options", [
    ["wrapper=[adversarial]", "penalty=[beta_decay]", "drop_path_prob=0.4"], ["relaxation=concrete"],
    ["wrapper=[auxiliary_skip]", "network={auxiliary_skip:true}"], ["monitor=[op_freezing]", "monitor.op_freezing.threshold=2",
                                                                       "monitor.op_freezing.count=1"],
    ["skip_dropout=p_darts"],
], ids=lambda options: options[0])
def test_a_selection_after_a_resume_finds_the_search_as_its_last_epoch_left_it(options):
    """What the epochs set and no checkpoint holds: temperatures, radii, chances of dropping, frozen weights."""
    chosen = ("epochs=3", "final_select=perturbation", "final_select.finetune_epochs=2", "final_select.train_alpha=true")
    cfg = composed(*SMALL, *options, *chosen)
    ends, kept = [], {}
    for fresh in (False, True):
        other = compose.search_stages(cfg, compose.search_parts(cfg))
        if fresh:
            for name, part in other.stateful().items():  # of the search before
                part.load_state_dict(kept[name])
        fit_stages(other, Records())
        kept = {name: copy.deepcopy(part.state_dict()) for name, part in other.stateful().items()}
        frozen = [p.requires_grad for p in other.loop.search.w]
        genotype = other.loop.genotype()
        ends.append((genotype, frozen, [p.detach().clone() for p in (*other.loop.search.w, *other.loop.search.alpha)]))
    assert ends[0][:2] == ends[1][:2] and all(torch.equal(a, b) for a, b in zip(ends[0][2], ends[1][2], strict=True))


@pytest.mark.parametrize("make", [lambda: Perturbation(finetune_epochs=-1), lambda: Perturbation(lr_factor=0),
                                  lambda: Perturbation(finetune_last=-1), lambda: Perturbation(schedule="linear"), lambda: Sampled(n=0),
                                  lambda: Perturbation(val_batches=0), lambda: Sampled(source="alphas"), lambda: WithinCost(limit=0),
                                  lambda: Sampled(statistics="mean")])
def test_wrong_options_of_a_final_selection_are_one_line(make):
    with pytest.raises(ValueError, match=" must be ") as caught:
        make()
    assert "\n" not in str(caught.value)
