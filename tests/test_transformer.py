"""Transformers with entangled weights: against slow sums written out, and against the networks that are left when all is decided."""

import json
import math
import random

import pytest
import torch
import torch.nn.functional as F

from ops.elastic import ElasticLayerNorm, ElasticLinear
from supernet.costs.base import FINAL
from supernet.costs.chain import chain_costs, layer_costs
from supernet.data.text import TextBatch
from supernet.genotype import Edge, Genotype
from supernet.networks.measure import multiply_adds_an_item, parameters
from supernet.networks.stacked import inherit
from supernet.networks.transformer import hidden_units
from supernet.passes import Sandwich, Step, extremes
from supernet.runs.journal import Journal
from supernet.spaces import gpt, vit
from supernet.tasks.base import Result
from supernet.tasks.language_model import LanguageModel
from supernet.weights import EdgeWeights, Weights, one_hot
from tests.helpers import At, run
from tests.reference import close

SIZES = {"embeddings": (6, 10), "heads": (1, 2, 3), "ratios": (1.5, 2, 3), "depths": (1, 2, 3), "head_channels": 4}
SPACES = {"vit": vit.make(**SIZES, patch=3), "vit, class token": vit.make(**SIZES, patch=2, class_token=True),
          "gpt": gpt.make(**SIZES, context=5)}
DATA = {"vit": {"num_classes": 3, "in_channels": 2, "image_size": (6, 12)}, "gpt": {"vocabulary": 7}}


@pytest.fixture(params=SPACES.values(), ids=SPACES)
def space(request):
    return request.param


def build(space, genotype=None, **more):
    torch.manual_seed(0)
    net = space.network(space.candidates(genotype), norm=FINAL, **space.sizes, **DATA[space.name], **more).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, value in sorted(net.named_parameters()):  # large enough that what is left out would show
            value += 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return net


def inputs(space, n=4):
    g = torch.Generator().manual_seed(1)
    if space.name == "gpt":
        return torch.randint(7, (5, n), generator=g)
    return torch.randn(n, 2, 6, 12, dtype=torch.float64, generator=g)


def logits(space, found):
    return found.logits if space.name == "gpt" else found


def random_alphas(space, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {kind: torch.randn(len(spec.edges), len(spec.ops), dtype=torch.float64, generator=g).requires_grad_()
            for kind, spec in space.cells.items()}


def softmax(alphas):
    return EdgeWeights({kind: Weights(alpha.softmax(1)) for kind, alpha in alphas.items()})


# ---- the slow version: every combination of choices is a piece of its own


def norm(layer, x):
    d = x.shape[-1]
    return F.layer_norm(x, (d,), layer.weight[:d], layer.bias[:d])


def linear(layer, x, outputs):
    return x @ layer.weight[:outputs, : x.shape[-1]].T + layer.bias[:outputs]


def attention(layer, x, heads):
    """Head by head."""
    width, part, found = layer.head_channels, layer.attention, []
    for h in range(heads):
        rows = slice(h * width, (h + 1) * width)
        q, k, v = (x @ p.weight[rows, : x.shape[-1]].T + p.bias[rows] for p in (part.query, part.key, part.value))
        scores = q @ k.transpose(1, 2) / math.sqrt(width)
        if part.causal:
            later = torch.arange(x.shape[1])[:, None] < torch.arange(x.shape[1])
            scores = torch.where(later, -torch.inf, scores)
        found.append(scores.softmax(2) @ v)
    return linear(part.projection, torch.cat(found, 2), x.shape[-1])


def slow_layer(layer, x, of_heads, of_ratios):
    d, y = x.shape[-1], norm(layer.norm1, x)
    x = x + sum(f * attention(layer, y, int(name.removeprefix("heads_"))) for name, f in of_heads.items())
    y = norm(layer.norm2, x)
    return x + sum(f * linear(layer.contract, F.gelu(linear(layer.expand, y, round(float(name.removeprefix("mlp_ratio_")) * d))), d)
                   for name, f in of_ratios.items())


def slow(space, net, x, weights):
    """The weighted sum of the widths' and the depths' outputs, layers with all their parts."""
    rows = {kind: [dict(zip(s.ops, row.unbind())) for row in weights[kind].ops] for kind, s in space.cells.items()}
    total, text = 0, space.name == "gpt"
    for width, of_width in rows["embedding"][0].items():
        d = int(width.removeprefix("embedding_"))
        if text:
            tokens = net.embedding[x.T][:, :, :d]
        else:
            conv = net.patches.convolution
            tokens = F.conv2d(x, conv.weight, conv.bias, conv.stride).flatten(2).transpose(1, 2)[:, :, :d]
            if net.patches.class_token is not None:
                tokens = torch.cat([net.patches.class_token[:d].expand(len(x), 1, d), tokens], 1)
        tokens = tokens + net.positions.weight[: tokens.shape[1], :d]
        left = 0
        for n, layer in enumerate(net.trunk.layers.blocks):
            tokens = slow_layer(layer, tokens, rows["heads"][n], rows["mlp_ratio"][n])
            left = left + rows["depth"][0][f"depth_{n + 1}"] * tokens
        features = norm(net.trunk.norm, left)
        if text:
            total = total + of_width * (features @ net.embedding[:, :d].T)
        else:
            features = features.mean(1) if net.patches.class_token is None else features[:, 0]
            total = total + of_width * (features @ net.classifier.weight[:, :d].T)
    return total.transpose(0, 1) + net.bias if text else total + net.classifier.bias


@pytest.mark.equation
def test_the_supernet_is_the_weighted_sum_written_out(space):
    """Outputs, and the gradients of alphas and of all weights; Chen et al. 2021, Sec. 3.2 for the slices."""
    net, alphas, x = build(space), random_alphas(space), inputs(space)
    weights = softmax(alphas)
    ours, theirs = logits(space, net(x, weights)), slow(space, net, x, weights)
    close(ours, theirs, 1e-10)
    leaves = [*alphas.values(), *net.parameters()]
    target = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for a, b in zip(*(torch.autograd.grad((out * target).sum(), leaves, retain_graph=True) for out in (ours, theirs))):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)  # the keys' offsets have no gradient at all


@pytest.mark.parametrize("seed", range(3))
def test_the_final_network_computes_what_the_supernet_computes_at_one_hot(space, seed):
    genotype = space.sample(random.Random(seed))
    supernet, final = build(space), build(space, genotype)
    inherit(final, supernet)
    hot, x = one_hot(space, genotype, dtype=torch.float64), inputs(space)
    close(logits(space, final(x)), logits(space, supernet(x, hot)), 1e-10)
    close(logits(space, final(x)), logits(space, supernet(x, EdgeWeights({k: Weights(w.ops) for k, w in hot.items()}))), 1e-10)
    close(logits(space, final(x)), slow(space, supernet, x, hot), 1e-10)
    assert parameters(final) < parameters(supernet)


def test_inactive_choices_are_neither_computed_nor_read(space):
    net, x = build(space), inputs(space)
    hot = one_hot(space, space.sample(random.Random(1)), dtype=torch.float64)
    spoiled = EdgeWeights({k: Weights(w.ops + torch.where(w.ops == 0, torch.nan, 0.0), active=w.active) for k, w in hot.items()})
    assert torch.equal(logits(space, net(x, hot)), logits(space, net(x, spoiled)))


def test_a_choice_that_runs_alone_has_a_gradient(space):
    """A draw of one op a row: nothing stands between a factor and what it decides that would take it away."""
    net, x = build(space), inputs(space)
    deepest = {"depth": "depth_3"}
    genotype = space.genotype({kind: [Edge(d, s, deepest.get(kind, spec.ops[0])) for s, d in spec.edges]
                               for kind, spec in space.cells.items()})
    hot = one_hot(space, genotype, dtype=torch.float64)
    ops = {k: w.ops.clone().requires_grad_() for k, w in hot.items()}
    out = logits(space, net(x, EdgeWeights({k: Weights(ops[k], active=w.active) for k, w in hot.items()})))
    out.log_softmax(-1)[..., 0].mean().backward()
    for kind, table in ops.items():
        assert (table.grad[hot[kind].ops > 0].abs() > 1e-5).all(), kind


def test_second_derivatives_exist():
    space = SPACES["gpt"]
    net, alphas = build(space), random_alphas(space)
    (g,) = torch.autograd.grad(net(inputs(space), softmax(alphas)).logits.square().sum(), alphas["heads"], create_graph=True)
    (again,) = torch.autograd.grad(g.square().sum(), net.trunk.layers.blocks[0].attention.query.weight)
    assert torch.isfinite(again).all() and again.abs().max() > 0


def test_no_item_of_a_text_sees_those_after_it_and_pieces_are_apart():
    space = SPACES["gpt"]
    net, x = build(space).eval(), torch.randint(7, (12, 2), generator=torch.Generator().manual_seed(3))
    before, changed = net(x).logits, x.clone()
    changed[8] = (x[8] + 1) % 7
    after = net(changed).logits
    same = (before == after).all(2).all(1)
    assert same.tolist() == [True] * 8 + [False] * 2 + [True] * 2  # the context is 5: items 5 to 9 are a piece, 10 and 11 another
    for piece, read in zip(x.split(5), before.split(5)):
        close(net(piece).logits, read, 1e-12)
    assert net(x).state is None
    with pytest.raises(ValueError, match=r"goes on from no state, got one of shape \(2, 3\)"):
        net(x, state=torch.zeros(2, 3))


def test_sorting_changes_nothing_at_full_size_and_puts_first_what_counts_most(space):
    net, x = build(space).eval(), inputs(space)
    largest = space.genotype({kind: [Edge(d, s, spec.ops[-1]) for s, d in spec.edges] for kind, spec in space.cells.items()})
    hot = one_hot(space, largest, dtype=torch.float64)
    before = logits(space, net(x, hot))
    weight = net.trunk.layers.blocks[0].attention.query.weight.clone()
    net.sort()
    close(logits(space, net(x, hot)), before, 1e-10)
    assert not torch.equal(weight, net.trunk.layers.blocks[0].attention.query.weight)
    for layer in net.trunk.layers.blocks:
        of_heads = layer.attention.projection.weight.detach().abs().sum(0).view(-1, layer.head_channels).sum(1)
        assert (of_heads.diff() <= 0).all() and (layer.contract.weight.detach().abs().sum(0).diff() <= 0).all()


def test_costs_are_those_of_the_final_network_and_of_the_hand_count(space):
    costs = chain_costs(space, **space.sizes, **DATA[space.name])
    example = inputs(space)[:1] if space.name == "vit" else torch.zeros(1, 1, dtype=torch.int64)
    for seed in range(5):
        genotype = space.sample(random.Random(seed))
        net = build(space, genotype)
        assert costs["parameters"](genotype) == parameters(net)
        assert costs["multiply_adds"](genotype) == multiply_adds_an_item(net, example)
    hot = one_hot(space, genotype, dtype=torch.float64)
    assert costs["multiply_adds"].expected(hot).item() == costs["multiply_adds"](genotype)
    assert costs["multiply_adds"].unit == ("multiply-adds an item" if space.name == "gpt" else "multiply-adds an image")


@pytest.mark.equation
def test_a_gpt_is_counted_by_hand():
    """d=10, 2 layers, 3 heads of 4, ratio 2, vocabulary 7, context 5: the products of queries with keys and of scores with values too."""
    space = SPACES["gpt"]
    genotype = space.genotype({"embedding": [Edge(1, 0, "embedding_10")], "depth": [Edge(1, 0, "depth_2")],
                               "heads": [Edge(n + 1, n, "heads_3") for n in range(3)],
                               "mlp_ratio": [Edge(n + 1, n, "mlp_ratio_2") for n in range(3)]})
    costs = chain_costs(space, **space.sizes, vocabulary=7)
    layer = 3 * (10 * 12 + 12) + 12 * 10 + 10 + 10 * 20 + 20 + 20 * 10 + 10 + 2 * 20
    assert costs["parameters"](genotype) == 7 * 10 + 5 * 10 + 2 * layer + 20 + 7
    assert costs["multiply_adds"](genotype) == 2 * (4 * 10 * 12 + 2 * 5 * 12 + 2 * 10 * 20) + 10 * 7
    assert len(layer_costs(space, **space.sizes, vocabulary=7)) == 3 + 2


def test_the_parts_of_a_final_network_compute_what_their_plain_forms_compute(space):
    net, g = build(space, space.sample(random.Random(2))), torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 5, net.plan.widest, dtype=torch.float64, generator=g)
    for part in (net.positions, net.trunk.layers.blocks[0], net.trunk.norm):
        plain = part.plain().module()
        ours = part(tokens) if part is not net.trunk.layers.blocks[0] else part(tokens, {
            "heads": dict.fromkeys(part.held_heads), "mlp_ratio": dict.fromkeys(part.ratios)}, 0.0, None)
        close(plain(tokens), ours, 1e-12)
    if space.name == "vit":
        close(net.patches.plain().module()(inputs(space)), net.patches(inputs(space), net.plan.widest), 1e-12)


def test_extremes_are_the_least_and_the_most_of_all(space):
    cost = chain_costs(space, **space.sizes, **DATA[space.name])["multiply_adds"]
    least, most = extremes(space, cost)
    assert {e.op for _, edges in most.cells for e in edges} == {"embedding_10", "heads_3", "mlp_ratio_3", "depth_3"}
    values = [cost(space.sample(random.Random(seed))) for seed in range(100)]
    assert cost(least) <= min(values) and cost(most) >= max(values)


def test_layers_that_do_not_run_decide_nothing(space):
    genotype = space.parse("depth:|depth_2~0|;embedding:|embedding_6~0|;heads:|heads_1~0|+|heads_2~1|+|heads_3~2|;"
                           "mlp_ratio:|mlp_ratio_2~0|+|mlp_ratio_2~1|+|mlp_ratio_3~2|")
    same = space.canonical(genotype)
    assert [e.op for e in same["heads"]] == ["heads_1", "heads_2", "heads_1"] and same["mlp_ratio"][2].op == "mlp_ratio_1.5"
    assert space.canonical(same) == same and space.count() == 2 * 3 * 3**3 * 3**3


def test_leading_slices_of_layers():
    torch.manual_seed(0)
    layer, normed = ElasticLinear(6, 8).double(), ElasticLayerNorm(6).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    close(layer(x, 5), x @ layer.weight[:5, :4].T + layer.bias[:5], 1e-14)
    want = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    close(normed(x), want, 1e-14)
    assert hidden_units("mlp_ratio_3.5", 192) == 672 and hidden_units("mlp_ratio_0.1", 2) == 1


def test_autoformers_published_sizes():
    """AutoFormer-tiny's largest and smallest networks (Chen et al. 2021, Table 1): the layers' parameters, without those of their relative
    positions, by the layers' formula 4 d q + 2 d h and what has one dimension."""
    space = vit.make(embeddings=(192, 216, 240), heads=(3, 4), ratios=(3.5, 4), depths=(12, 13, 14), head_channels=64, patch=16)
    assert space.count() == 3 * 3 * (2 * 2) ** 14
    cost = chain_costs(space, **space.sizes, num_classes=1000, image_size=(224, 224))["parameters"]
    least, most = extremes(space, cost)
    for genotype, d, h, r, n in ((least, 192, 3, 3.5, 12), (most, 240, 4, 4, 14)):
        q, hidden = 64 * h, int(r * d)
        layers = n * (4 * d * q + 3 * q + d + 2 * d * hidden + hidden + d + 4 * d)
        assert cost(genotype) == layers + d * (3 * 256 + 1 + 196) + 2 * d + 1000 * d + 1000
    assert 4.5e6 < cost(least) < 5.5e6 and 8.5e6 < cost(most) < 10.5e6  # "4-9 M" there, which counts no positions for each place


@pytest.mark.parametrize("options, message", [
    ({"heads": []}, "space.heads must be distinct"), ({"embeddings": [8, 8]}, "space.embeddings must be distinct"),
    ({"ratios": [2, 2.0000001]}, "first six digits"), ({"depths": [0]}, "depths"), ({"head_channels": 0}, "head_channels"),
    ({"ratios": [0]}, "ratios"),
])
@pytest.mark.parametrize("make", [vit.make, gpt.make], ids=["vit", "gpt"])
def test_options_of_the_spaces_are_checked(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"sides \(6, 12\) must be multiples of space.patch=4"):
        build(vit.make(**SIZES, patch=4))
    with pytest.raises(ValueError, match="channels must be 10 in this space, got 8"):
        SPACES["gpt"].network(SPACES["gpt"].candidates(), norm=FINAL, layers=3, channels=8, vocabulary=7)


def test_dropout_and_drop_path_draw_from_the_generator_in_training_alone(space):
    net, x = build(space, dropout=0.5).train(), inputs(space)
    net.drop_path_prob = 0.5
    with pytest.raises(ValueError, match="called with generator="):
        net(x)
    drawn = [logits(space, net(x, generator=torch.Generator().manual_seed(n))) for n in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    plain = build(space).eval()
    assert torch.equal(logits(space, net.eval()(x)), logits(space, plain(x)))


# ---- learning from the largest, on text


@pytest.mark.equation
def test_a_language_model_is_taught_by_the_largest_ones_probabilities():
    """The sum over items of T^2 KL(p_largest || p), as written out; nothing flows into the teacher."""
    space = SPACES["gpt"]
    net, task = build(space).train(), LanguageModel(item="character", bptt=5)
    x = torch.randint(7, (6, 3), generator=torch.Generator().manual_seed(4))
    batch, drawn = TextBatch(x[:-1], x[1:], True), one_hot(space, space.sample(random.Random(5)), dtype=torch.float64)
    passes = Sandwich(space, net, draws=1, distillation=0.7, temperature=2.0)
    seen = []

    def one(weights, task) -> Result:
        seen.append(weights)
        return task(net, batch, weights)

    found = list(passes(Step(net, task, drawn, lambda: drawn, one, None)))
    assert seen == [passes.largest, passes.smallest, drawn]
    p = (net(batch.inputs, passes.largest).logits / 2).softmax(2)
    for result, weights in zip(found[1:], seen[1:]):
        out = net(batch.inputs, weights).logits
        divergence = 4 * (p * (p.log() - (out / 2).log_softmax(2))).sum(2).mean()
        close(result.loss, 0.3 * F.cross_entropy(out.flatten(0, 1), batch.targets.flatten()) + 0.7 * divergence, 1e-10)
        assert result.stats["count"] == 15
    found[1].loss.backward()
    outside = net.embedding.grad[:, 6:]  # the smallest reads the first 6 channels
    assert outside.abs().max() == 0 and net.embedding.grad.abs().max() > 0


# ---- the scripts

TEXT = ["dataset=text", "dataset.path=text.txt", "dataset.bptt=8", "batch_size=4", "eval_batch_size=4", "epochs=2"]
TINY = ["space.embeddings=[4,8]", "space.heads=[1,2]", "space.ratios=[1,2]", "space.depths=[1,2]", "space.head_channels=4"]


@pytest.fixture
def folder(tmp_path):
    words = random.Random(0).choices(["the cat ", "sat on ", "a mat\n"], k=120)
    (tmp_path / "text.txt").write_text("".join(words))
    return tmp_path


def metrics(search):
    return [{k: v for k, v in r.items() if k not in ("seconds", "items_per_s", "elapsed_s")}
            for r in Journal.read(search / "metrics.jsonl")]


GPT = ["space=gpt", *TINY, "space.context=6", *TEXT, "relaxation=uniform", "passes=sandwich", "network={dropout:0.2}", "name=x",
       "split.max_train=200"]


@pytest.mark.slow
def test_a_search_with_the_sandwich_rule_on_text_goes_on_after_a_kill_with_the_same_bits(folder):
    """With dropout; the context is shorter than the sequences."""
    options = [*GPT, "checkpoint_every_s=0"]
    assert run("train_search", *options, "output=whole", cwd=folder, report=False).code == 0
    assert run("train_search", *options, "output=broken", cwd=folder, at=At(60), report=False).code == -9
    assert run("train_search", *options, "output=broken", "resume=auto", cwd=folder, report=False).code == 0
    kept = [metrics(search) for output in ("whole", "broken") for search in folder.glob(f"{output}/*_search_*")]
    assert kept[0] == kept[1] and len(kept[0]) == 2


def test_a_gpt_is_searched_and_retrained(folder):
    done = run("train_search", *GPT, cwd=folder, report=False)
    assert done.code == 0 and "supernet validation bits per character" in done.out, done.err
    (genotype,) = folder.glob("runs/*_search_*/genotype.json")
    done = run("train_final", *TEXT[:-1], f"genotype={genotype}", "epochs=1", cwd=folder, report=False)
    assert done.code == 0 and "test bits per character" in done.out, done.err
    (final,) = folder.glob("runs/*_final_*")
    summary = json.loads((final / "summary.json").read_text())
    space = gpt.make(embeddings=(4, 8), heads=(1, 2), ratios=(1, 2), depths=(1, 2), head_channels=4, context=6)
    costs = chain_costs(space, **space.sizes, vocabulary=len(set((folder / "text.txt").read_text())) + 1)
    assert all(summary["values"][name] == cost(Genotype.load(genotype)) for name, cost in costs.items())


def test_a_vit_is_searched_with_gradients(folder):
    options = ["space=vit", *TINY, "space.patch=4", "dataset=digits", "epochs=1", "split.max_train=32", "split.max_val=32", "batch_size=16",
               "protocol=vit", "optimizer@w_optimizer=adamw"]
    done = run("train_search", *options, "cost=multiply_adds", "penalty=[cost_log]", cwd=folder, report=False)
    assert done.code == 0 and "supernet validation accuracy" in done.out, done.err


@pytest.mark.parametrize("options, message", [
    (["space=gpt", "dataset=digits"], "need text, as does gpt"), (["space=vit", *TEXT], "others images"),
    (["space=gpt", *TEXT, "network={dropout:1}"], "dropout must be at least 0 and below 1, got 1"),
    (["space=darts_rnn", *TEXT, "passes=sandwich", "relaxation=uniform"], "those of chains of decisions, space darts_rnn is none"),
])
def test_wrong_options_are_one_line(folder, options, message):
    done = run("train_search", *options, cwd=folder)
    lines = done.err.strip().splitlines()
    assert done.code == 2 and len(lines) == 1 and message in lines[0], done.err
