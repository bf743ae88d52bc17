"""Ours beside numbers of the official codes, in float64: what each file of tests/oracles says must come out (`tests/official.py`).

Sources: quark0/darts f276dd3, automl/RobustDARTS 3dec3fe, xiangning-chen/DrNAS f2caa4d, yuhuixu1993/PC-DARTS b74702f, D-X-Y/AutoDL-Projects
f46486e, ruocwang/darts-pt 4ec3149, xiangning-chen/SmoothDARTS d3dbfed.
"""

import types

import pytest
import torch

from supernet import genotype
from supernet.bilevel import Bilevel
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.monitors.eigenvalue import alpha_curvature, dominant_eigenvalue
from supernet.networks import cell
from supernet.networks.build import final_normalisation
from supernet.penalties.alphas import DirichletKL
from supernet.processes.group import ALONE
from supernet.relaxations.dirichlet import Dirichlet
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.perturbed import Adversarial, RandomPerturbed
from supernet.select import perturbation
from supernet.spaces import darts, nasbench201, robust
from supernet.tasks.classification import Classification
from supernet.training.records import Position
from supernet.weights import EdgeWeights, Weights
from tests import backends
from tests.official import (
    KINDS,
    agree,
    batch,
    by_name,
    cross_entropy,
    digest_difference,
    filled,
    read,
    slopes,
    softmax,
    supernet,
    tables,
    tensor,
)
from tests.searches import composed


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(params=["plain", "native"])
def backend(request):
    with backends.using(request.param):
        yield request.param


def sgd(parameters, lr=0.025):
    return torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=3e-4)


def adam(parameters, lr=3e-4):
    return torch.optim.Adam(parameters, lr, betas=(0.5, 0.999), weight_decay=1e-3)


def bilevel(net, relaxation, hypergradient=first_order, **more):
    generators = {name: torch.Generator().manual_seed(0) for name in ("alpha", "net")}
    return Bilevel(net, relaxation, hypergradient, Classification(), sgd(net.parameters()), adam(relaxation.parameters()), generators,
                   **more)


# ---- DARTS


@pytest.fixture(scope="module")
def darts_search():
    return read("darts_search")


def darts_step(oracle, hypergradient):
    """The search as the file begins it: weights, momenta, alphas."""
    net = filled(supernet(darts.make(), 3, 4), oracle)
    search = bilevel(net, softmax(darts.make(), tables(oracle, "alpha")), hypergradient, clip_norm=float(oracle["clip_norm"]))
    momenta = by_name(oracle, dict(net.named_parameters()), "momentum")
    for name, p in net.named_parameters():
        search.w_optimizer.state[p]["momentum_buffer"] = momenta[name].clone()
    return search


@pytest.mark.equation("darts_first_order", "darts_second_order")
@pytest.mark.parametrize("order, hypergradient, backend", [("first_order", first_order, "native"),
                                                           ("second_order", finite_difference, "plain"),
                                                           ("second_order", finite_difference, "native")], indirect=["backend"])
def test_logits_and_hypergradients_are_those_of_darts(darts_search, order, hypergradient, backend):
    search = darts_step(darts_search, hypergradient)
    train, val = (batch(darts_search, part) for part in ("train", "val"))
    found, _ = search.alpha_gradient(train, val, {})
    agree(dict(zip(search.relaxation.alpha, found)), tables(darts_search, order))
    agree(search.net(train[0], search.relaxation.weights({})), darts_search["logits"])


@pytest.mark.equation("darts_first_order", "darts_second_order")
@pytest.mark.parametrize("order, hypergradient, backend", [("first", first_order, "native"), ("second", finite_difference, "native"),
                                                           pytest.param("second", finite_difference, "plain", marks=pytest.mark.slow)],
                         indirect=["backend"])
def test_three_steps_lead_where_those_of_darts_lead(darts_search, order, hypergradient, backend):
    search = darts_step(darts_search, hypergradient)
    train, val = (batch(darts_search, part) for part in ("train", "val"))
    for pair in ((train, val), (val, train), (train, val)):
        search.step(*pair)
    agree(search.relaxation.alpha, tables(darts_search, f"after_three_{order}/alpha"))
    if order == "second":
        assert digest_difference(darts_search, "after_three_second", dict(search.net.named_parameters())) <= 1e-9


# ---- drop path


@pytest.mark.equation("r_darts_dp")
def test_drop_path_of_a_supernet_drops_whole_mixed_edges_as_robust_darts_does(monkeypatch, backend):
    """Their skip connections too; else the logits are 0.39 off and the alpha gradient 1.6."""
    oracle, space = read("drop_path_search"), robust.s2()
    net, relaxation = filled(supernet(space, 3, 4), oracle), softmax(space, tables(oracle, "alpha"))
    (x, y), prob = batch(oracle, "train"), float(oracle["drop_path_prob"])
    agree(net(x, relaxation.weights({})), oracle["logits_without"])
    cells = iter(tensor(oracle["masks"]).double() / (1 - prob))
    monkeypatch.setattr(cell, "drop_path_masks", lambda *args: next(cells)[:, :, None, None, None])
    net.drop_path_prob = prob
    logits = net(x, relaxation.weights({}), generator=torch.Generator())
    agree(logits, oracle["logits"])
    cross_entropy(logits, y).backward()
    agree(slopes(relaxation), tables(oracle, "alpha_gradient"))


# ---- DrNAS


@pytest.mark.equation("dr_nas")
def test_the_preset_of_dr_nas_composes_its_supernet(backend):
    """With a norm after pools; without one the logits are 0.17 off."""
    oracle = read("drnas_darts_space")
    space, (x, y) = darts.make(ops=oracle["ops"].tolist()), batch(oracle, "train")
    preset = composed("experiment=dr_nas_cifar10")
    assert list(preset.space.ops) == oracle["ops"].tolist()
    net = filled(supernet(space, 3, 8, preset.compat.pool_norm, partial=4), oracle)
    drawn = {kind: tensor(oracle[f"drawn/{kind}"]).requires_grad_() for kind in KINDS}
    logits = net(x, EdgeWeights({kind: Weights(w) for kind, w in drawn.items()}))
    agree(logits, oracle["logits"])
    cross_entropy(logits, y).backward()
    agree({kind: w.grad for kind, w in drawn.items()}, tables(oracle, "drawn_gradient"))


@pytest.mark.equation("dr_nas")
def test_the_divergence_is_that_of_dr_nas():
    oracle = read("drnas_darts_space")
    space = darts.make(ops=oracle["ops"].tolist())
    relaxation = Dirichlet(space, torch.Generator())
    with torch.no_grad():
        for kind, alpha in relaxation.alpha.items():
            alpha.copy_(tensor(oracle[f"alpha/{kind}"]))
    divergence = DirichletKL(space, weight=float(oracle["kl_weight"]))(None, None, relaxation)
    agree(divergence, oracle["kl"])
    divergence.backward()
    agree(slopes(relaxation), tables(oracle, "kl_gradient"))


# ---- PC-DARTS


@pytest.mark.equation("pc_darts")
def test_partial_channels_and_edge_weights_are_those_of_pc_darts(backend):
    oracle, space = read("pc_darts"), darts.make()
    net = filled(supernet(space, 3, 8, partial=4), oracle)
    relaxation = EdgeNormalised(softmax(space, tables(oracle, "alpha")), space, torch.Generator())
    with torch.no_grad():
        for kind in KINDS:
            sizes = [len(p) for p in relaxation.beta[kind]]
            for own, part in zip(relaxation.beta[kind], tensor(oracle[f"beta/{kind}"]).split(sizes)):
                own.copy_(part)
    x, y = batch(oracle, "train")
    logits = net(x, relaxation.weights({}))
    agree(logits, oracle["logits"])
    cross_entropy(logits, y).backward()
    agree(slopes(relaxation.inner), tables(oracle, "alpha_gradient"))
    agree({kind: torch.cat([p.grad for p in relaxation.beta[kind]]) for kind in KINDS}, tables(oracle, "beta_gradient"))


# ---- NAS-Bench-201


def test_the_supernet_of_nasbench201_is_the_official_one(backend):
    oracle, space = read("nasbench201_search"), nasbench201.make()
    assert list(space.cells["cell"].ops) == oracle["ops"].tolist()
    net, relaxation = filled(supernet(space, 5, 4), oracle), softmax(space, tables(oracle, "alpha", ["cell"]))
    x, y = batch(oracle, "train")
    logits = net(x, relaxation.weights({}))
    agree(logits, oracle["logits"])
    cross_entropy(logits, y).backward()
    agree(slopes(relaxation), tables(oracle, "alpha_gradient", ["cell"]))


@pytest.fixture(scope="module")
def nasbench201_final():
    return read("nasbench201_final")


@pytest.mark.parametrize("n", range(5))
def test_final_networks_of_nasbench201_are_the_official_ones(nasbench201_final, n, backend):
    """In evaluation, in a training pass, and in evaluation with the running statistics that it leaves."""
    oracle, space = nasbench201_final, nasbench201.make()
    text = oracle["cells"][n]
    architecture = next(g for g in space.enumerate() if space.text(g) == text)
    net = space.network(space.candidates(architecture), layers=5, channels=4, num_classes=10, norm=final_normalisation("search", "running"))
    filled(net, oracle, f"weights_{n}")
    x, _ = batch(oracle, "train")
    agree(net.eval()(x), oracle[f"logits_eval_{n}"])
    agree(net.train()(x), oracle[f"logits_train_{n}"])
    agree(net.eval()(x), oracle[f"logits_eval_after_{n}"])
    assert sum(p.numel() for p in net.parameters()) == oracle[f"parameters_{n}"]


# ---- the final network of DARTS


@pytest.fixture(scope="module")
def final_cifar():
    return read("final_cifar")


def darts_v2(oracle):
    """The network, as the file begins it, and the edges of its genotype in the order of the file's masks, by kind."""
    found = genotype.find("darts_v2")
    space = darts.make(**found.arguments)
    edges = {}
    for kind in KINDS:
        rows = oracle[f"genotype/{kind}"].tolist()
        assert sorted(zip((d for _, d in rows), (s for s, _ in rows), oracle[f"genotype/{kind}_ops"].tolist())) == sorted(
            (e.destination, e.source, e.op) for e in found[kind])
        edges[kind] = [space.cells[kind].edges.index((source, node)) for source, node in rows]
    net = space.network(space.candidates(found), layers=5, channels=4, num_classes=10, norm=final_normalisation("search", "running"),
                        auxiliary=True, image_size=(32, 32))
    assert net.kinds == oracle["kinds"].tolist()
    return filled(net, oracle), edges


def test_the_final_network_of_darts_is_the_official_one(final_cifar, backend):
    (net, _), (x, _) = darts_v2(final_cifar), batch(final_cifar, "train")
    logits, extra = net(x, auxiliary=True)
    agree(logits, final_cifar["logits"])
    agree(extra, final_cifar["auxiliary_logits"])
    agree(net.eval()(x), final_cifar["logits_eval_after"])


def test_drop_path_of_a_final_network_spares_the_identity_as_darts_does(final_cifar, monkeypatch, backend):
    (net, edges), (x, y) = darts_v2(final_cifar), batch(final_cifar, "train")
    prob, factors = float(final_cifar["drop_path/prob"]), []
    for kind, masks in zip(net.kinds, tensor(final_cifar["drop_path/masks"]).double()):
        factors.append(torch.zeros(14, len(x), 1, 1, 1))  # of edges that are not in the genotype: nobody reads them
        for e, kept in zip(edges[kind], masks):
            factors[-1][e] = kept[:, None, None, None] / (1 - prob)
    given = iter(factors)
    monkeypatch.setattr(cell, "drop_path_masks", lambda *args: next(given))
    net.drop_path_prob = prob
    logits, extra = net(x, generator=torch.Generator(), auxiliary=True)
    agree(logits, final_cifar["drop_path/logits"])
    agree(extra, final_cifar["drop_path/auxiliary_logits"])
    (cross_entropy(logits, y) + float(final_cifar["auxiliary_weight"]) * cross_entropy(extra, y)).backward()
    assert digest_difference(final_cifar, "drop_path/gradient", {name: p.grad for name, p in net.named_parameters()}) <= 1e-9


# ---- SDARTS


@pytest.fixture(scope="module")
def sdarts():
    return read("sdarts")


@pytest.mark.equation("sdarts_rs", "sdarts_adv")
@pytest.mark.parametrize("n, backend", [(0, "plain"), (1, "plain"), *((n, "native") for n in range(8))], indirect=["backend"])
def test_the_weights_train_under_the_perturbation_of_smooth_darts(sdarts, n, monkeypatch, backend):
    space, (x, y) = darts.make(ops=sdarts["ops"].tolist()), batch(sdarts, "train")
    net = filled(supernet(space, 3, 2), sdarts)
    relaxation, epsilon = softmax(space, dict(zip(KINDS, sdarts["alpha"][n]))), float(sdarts["epsilon"][n])
    wrapper = {"random": RandomPerturbed, "adversarial": Adversarial}[sdarts["kind"][n]](
        relaxation, space, torch.Generator(), epsilon=epsilon, epsilon_end=epsilon)
    search, starts = bilevel(net, wrapper, clip_norm=5.0), iter(tensor(sdarts["uniform"][n]))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **how: next(starts).clone())
        found = search.draw_for_w((x, y), {})
    agree({kind: found[kind].ops for kind in KINDS}, dict(zip(KINDS, sdarts["perturbed"][n])))
    with torch.no_grad():
        agree(net.eval()(x, found), sdarts["logits_eval"][n])


# ---- the eigenvalue of RobustDARTS


@pytest.mark.equation("darts_es")
@pytest.mark.parametrize("columns", [6, pytest.param(None, marks=pytest.mark.slow)], ids=["some columns", "all columns"])
@pytest.mark.parametrize("name", ["s1", "s3"])
def test_the_hessian_of_alpha_is_that_of_robust_darts(name, columns):
    """Entry by entry; the code adds its weight decay to the diagonal, which is left out here."""
    oracle, space = read(f"eigenvalue_{name}"), getattr(robust, name)()
    assert all(list(space.cells[kind].ops) == oracle[f"ops/{kind}"].tolist() for kind in KINDS)
    search = bilevel(filled(supernet(space, 3, 4), oracle), softmax(space, tables(oracle, "alpha")))
    product, flat = alpha_curvature(search, batch(oracle, "val"))
    starts, at = {}, 0
    for kind, table in search.relaxation.tables().items():
        starts[kind], at = at, at + table.numel()
    order = [starts[KINDS[k]] + e * len(space.cells[KINDS[k]].ops) + o for k, e, o in oracle["index"].tolist()]
    unit = torch.eye(len(flat))
    lower = torch.zeros(len(order), len(order))
    lower[torch.tril_indices(len(order), len(order)).unbind()] = tensor(oracle["hessian_lower"])
    official = lower + lower.tril(-1).T
    agree(torch.linalg.eigvalsh(official)[-1], oracle["eigenvalue"])
    some = range(len(order)) if columns is None else range(0, len(order), len(order) // columns)
    agree(torch.stack([product(unit[order[i]])[order] for i in some]), official[list(some)])


@pytest.mark.equation("darts_es")
@pytest.mark.parametrize("name, how, error", [("s1", {}, 1e-6), ("s3", {"tolerance": 1e-9}, 1e-9)])
def test_the_dominant_eigenvalue_is_that_of_robust_darts(name, how, error):
    oracle, space = read(f"eigenvalue_{name}"), getattr(robust, name)()
    search = bilevel(filled(supernet(space, 3, 4), oracle), softmax(space, tables(oracle, "alpha")))
    found = dominant_eigenvalue(search, batch(oracle, "val"), **how)
    agree(torch.tensor(found.value), oracle["eigenvalue"], error)
    assert abs(found.value - oracle["eigenvalue"]) <= found.off + 1e-12 and found.iterations < 50


# ---- the decisions of DARTS-PT


@pytest.fixture(scope="module")
def darts_pt():
    return read("darts_pt")


@pytest.mark.equation("darts_pt")
@pytest.mark.parametrize("n", range(10))
def test_perturbation_decides_as_darts_pt(darts_pt, n, monkeypatch):
    """Op by op, edge by edge, in given orders, with an accuracy that is a function of the edge weights and alphas that move while the
    supernet is fine-tuned."""
    space = darts.make(ops=darts_pt["ops"].tolist())
    relaxation = softmax(space, dict(zip(KINDS, darts_pt["alpha"][n])))
    a, b, c = (tensor(darts_pt[name][n]) for name in "abc")
    drift, optimizer, decisions = dict(zip(KINDS, tensor(darts_pt["drift"][n]))), sgd([torch.nn.Parameter(torch.zeros(1))]), []

    class Training:
        def __iter__(self):
            with torch.no_grad():
                for kind in KINDS:
                    relaxation.alpha[kind].add_(drift[kind])
            return iter(())

    def accuracy(net, task, batches, draw, generator, context, group):
        w = torch.cat([draw()[kind].ops.flatten() for kind in KINDS])
        return {"accuracy": (50 + 3 * a @ w + (b @ w) * (c @ w)).item()}

    class Told(perturbation.Decided):
        def decide_op(self, kind, e, accuracy):
            super().decide_op(kind, e, accuracy)
            decisions.append(("op", kind, self.rows[kind][e]))

        def decide_edges(self, kind, i, accuracy):
            super().decide_edges(kind, i, accuracy)
            spec = space.cells[kind]
            decisions.append(("edges", kind, [e for e in spec.incoming(spec.nodes[i]) if self.rows[kind][e] >= 0]))

    orders = iter([*darts_pt["edge_order"][n].tolist(), *(darts_pt["node_order"][n] - 2).tolist()])
    monkeypatch.setattr(perturbation, "_shuffled", lambda items, generator: next(orders))
    monkeypatch.setattr(perturbation, "evaluate", accuracy)
    monkeypatch.setattr(perturbation, "Decided", Told)
    nobody = types.SimpleNamespace(working=lambda: None, line=lambda text: None)
    search = types.SimpleNamespace(relaxation=relaxation, norms=(), w_optimizer=optimizer, net=torch.nn.Identity(), task=None, context=None,
                                   alpha=(1,), group=ALONE)
    loop = types.SimpleNamespace(space=space, search=search, generators={"alpha": torch.Generator(), "net": None}, val=[None],
                                 drawn=lambda batch_size: [None], lr=(float(darts_pt["search_lr"]), 3e-4), train=Training(),
                                 recorder=nobody, alpha_batches=None, position=Position(), guard=types.SimpleNamespace(look=lambda: None))
    found = perturbation.Perturbation()(loop)
    for k, kind in enumerate(KINDS):
        assert [o for what, of, o in decisions if (what, of) == ("op", kind)] == darts_pt["ops_chosen"][n, k].tolist()
        assert [es for what, of, es in decisions if (what, of) == ("edges", kind)] == darts_pt["edges_kept"][n, k].tolist()
        cell_of = [sorted([e.source, space.cells[kind].ops.index(e.op)] for e in found[kind] if e.destination == i + 2) for i in range(4)]
        assert cell_of == darts_pt["genotypes"][n, k].tolist()
