"""The recurrent cell against a slow, obvious version; the language model; searching and retraining it."""

import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ops.activations import ACTIVATIONS
from ops.op import Normalisation
from supernet.bilevel import Streams
from supernet.networks.stacked import inherit
from supernet.runs.journal import Journal
from supernet.spaces import darts_rnn
from supernet.tasks.language_model import LanguageModel
from supernet.weights import EdgeWeights, Weights, one_hot
from tests.helpers import run
from tests.reference import close

NORM = Normalisation(affine=False, after_pools=True)
SPACE = darts_rnn.make(nodes=3)


def build(space=SPACE, genotype=None, batch_norm=True, **dropouts):
    torch.manual_seed(0)
    return space.network(space.candidates(genotype), norm=NORM, layers=1, channels=6, vocabulary=11, batch_norm=batch_norm,
                         **dropouts).double()


def random_weights(space=SPACE):
    spec = space.cells["recurrent"]
    return EdgeWeights({"recurrent": Weights(torch.rand(len(spec.edges), len(spec.ops), dtype=torch.float64, requires_grad=True))})


def slow(net, x, weights, batch_norm):
    """The cell as the paper writes it: one edge, one activation, one time at a time."""
    spec, table = net.cell.spec, weights["recurrent"].ops
    normed = (lambda s: F.batch_norm(s, None, None, training=True)) if batch_norm else (lambda s: s)
    h = torch.zeros(x.shape[1], net.hidden, dtype=torch.float64)
    logits = []
    for t in range(len(x)):
        c, g = torch.cat([net.embedding[x[t]], h], -1).matmul(net.cell.w0).split(net.hidden, -1)
        states = [normed(h + torch.sigmoid(c) * (torch.tanh(g) - h))]
        for node, w in zip(spec.nodes, net.cell.w):
            s = 0
            for e, (source, destination) in enumerate(spec.edges):
                if destination == node:
                    for o, op in enumerate(spec.ops):
                        if op != "none":
                            c, g = states[source].matmul(w).split(net.hidden, -1)
                            s = s + table[e, o] * (states[source] + torch.sigmoid(c) * (ACTIVATIONS[op](g) - states[source]))
            states.append(normed(s))
        h = sum(states[1:]) / len(spec.nodes)
        logits.append(h @ net.embedding.T + net.bias)
    return torch.stack(logits)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_cell_equals_the_slow_version(batch_norm):
    net, weights, x = build(batch_norm=batch_norm), random_weights(), torch.randint(11, (5, 4))
    ours, theirs = net(x, weights).logits, slow(net, x, weights, batch_norm)
    close(ours, theirs, 1e-10)
    inputs = [weights["recurrent"].ops, *net.parameters()]
    targets = torch.randint(11, (20,))
    losses = [F.cross_entropy(logits.flatten(0, 1), targets) for logits in (ours, theirs)]
    for a, b in zip(*(torch.autograd.grad(loss, inputs) for loss in losses)):
        close(a, b, 1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_final_network_computes_what_the_supernet_computes_at_one_hot(seed):
    space = darts_rnn.make()
    genotype = space.sample(random.Random(seed))
    supernet, final = build(space), build(space, genotype)
    inherit(final, supernet)
    x, state = torch.randint(11, (4, 3)), torch.randn(3, 6, dtype=torch.float64)
    hot = one_hot(space, genotype, dtype=torch.float64)
    spoiled = EdgeWeights({k: Weights(torch.where(w.ops == 0, torch.nan, w.ops), active=w.active) for k, w in hot.items()})
    for mode in (True, False):
        ours, theirs = final.train(mode)(x, state=state), supernet.train(mode)(x, spoiled, state=state)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-10)


def test_golden_facts():
    space = darts_rnn.make()
    assert len(space.cells["recurrent"].edges) == 36 and space.count() == np.prod([4 * n for n in range(1, 9)])
    # 33,280 units of published size: embedding and decoder are tied, each of the cell's 9 matrices has both gates
    net = space.network(space.candidates(space.sample(random.Random(0))), norm=NORM, layers=1, channels=850, vocabulary=10_000,
                        batch_norm=False)
    assert sum(p.numel() for p in net.parameters()) == 10_000 * 850 + 10_000 + (2 * 850 + 8 * 850) * 2 * 850  # 23M, as published


def test_sequences_go_on_from_the_state():
    net = build(batch_norm=False).eval()
    x, weights = torch.randint(11, (9, 4)), random_weights()
    whole = net(x, weights)
    first = net(x[:4], weights)
    torch.testing.assert_close(net(x[4:], weights, state=first.state).logits, whole.logits[4:], rtol=0, atol=1e-12)
    assert not first.state.requires_grad


def test_a_loaded_state_follows_the_batches_to_their_device():
    streams = Streams()
    streams.load_state_dict({"train": torch.ones(2, 3), "val": None})
    batch = (torch.ones(4, 2, device="meta"), torch.ones(4, 2, device="meta"))
    assert streams.before("train", batch).device.type == "meta" and streams.before("val", batch) is None


def test_dropout_draws_one_mask_a_sequence():
    net = build(batch_norm=False, dropout_output=0.5)
    out = net(torch.randint(11, (7, 4)), generator=torch.Generator().manual_seed(0))
    kept = out.dropped != 0
    assert (kept == kept[0]).all() and 0 < kept.double().mean() < 1
    with pytest.raises(ValueError, match="generator="):
        net(torch.randint(11, (2, 2)))
    with pytest.raises(ValueError, match="dropout_x must be at least 0 and below 1, got 1.0"):
        build(dropout_x=1.0)


def test_the_task_counts_items_and_regularises_in_training_only():
    from supernet.data.text import TextBatch

    net, task = build(batch_norm=False), LanguageModel(item="character", bptt=5, activation=2.0, temporal=3.0)
    x = torch.randint(11, (6, 4))
    batch, state = TextBatch(x[:-1], x[1:], fresh=True), torch.randn(4, 6, dtype=torch.float64)
    loss, stats, new = task(net, batch, random_weights(), state=state)
    plain = task(net.eval(), batch, random_weights())
    assert plain.loss * 20 == plain.stats["loss"] and stats["count"] == 20 and new.shape == (4, 6)
    net.train()
    weights = random_weights()
    out = net(batch.inputs, weights)  # fresh: the state is not used
    want = F.cross_entropy(out.logits.flatten(0, 1), batch.targets.flatten()) + 2 * (out.raw**2).mean()
    want = want + 3 * (out.raw[1:] - out.raw[:-1]).pow(2).mean()
    torch.testing.assert_close(task(net, batch, weights, state=state).loss, want)
    assert task.metrics({"loss": np.log(2), "accuracy": 1.0})["bits_per_character"] == pytest.approx(1) and task.lr_factor(batch) == 1


TEXT = ["dataset=text", "dataset.path=text.txt", "dataset.bptt=8", "channels=8", "batch_size=4", "eval_batch_size=4", "epochs=2"]


@pytest.fixture
def folder(tmp_path):
    words = random.Random(0).choices(["the cat ", "sat on ", "a mat\n"], k=120)
    (tmp_path / "text.txt").write_text("".join(words))
    return tmp_path


@pytest.mark.parametrize("options", [[], ["hypergradient=finite_difference", "optimizer@w_optimizer=plain_sgd"]])
def test_search_and_retrain_on_text(folder, options):
    done = run("train_search", "space=darts_rnn", "space.nodes=2", *options, *TEXT, cwd=folder)
    assert done.code == 0 and "supernet validation bits per character" in done.out, done.err
    (search,) = folder.glob("runs/*_search_*")
    records = [json.loads(line) for line in (search / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["val_bits_per_character"] == pytest.approx(records[-1]["val_loss"] / np.log(2))
    assert records[-1]["val_perplexity"] == pytest.approx(np.exp(records[-1]["val_loss"]))
    done = run("train_final", *TEXT, cwd=folder)
    assert done.code == 0 and "test bits per character" in done.out and "multiply-adds" in done.out, done.err


def test_the_published_setup_on_three_files_of_words(tmp_path):
    words = random.Random(0).choices(["the", "cat", "sat", "on", "a", "mat\n"], k=600)
    for name, part in (("train", words[:400]), ("valid", words[400:500]), ("test", words[500:])):
        (tmp_path / f"{name}.txt").write_text(" ".join(part))
    small = ["dataset.path=.", "dataset.bptt=6", "channels=6", "batch_size=4", "eval_batch_size=4", "epochs=1", "space.nodes=3"]
    done = run("train_search", "experiment=darts_first_order_ptb", *small, cwd=tmp_path)
    assert done.code == 0 and "supernet validation perplexity" in done.out and "words" in done.out, done.err
    (search,) = tmp_path.glob("runs/*_search_darts_first_order_ptb_*")
    (record,) = map(json.loads, (search / "metrics.jsonl").read_text().splitlines())
    assert record["lr"] == 20 and record["val_perplexity"] == pytest.approx(np.exp(record["val_loss"]))
    done = run("train_final", "dataset=ptb", *small[:-1], cwd=tmp_path)
    assert done.code == 0 and "test perplexity" in done.out and "per word" in done.out, done.err


def test_a_search_on_text_resumes_to_the_same_bits(folder):
    from tests.helpers import At

    options = ["space=darts_rnn", "space.nodes=2", *TEXT, "checkpoint_every_s=0", "name=x"]
    assert run("train_search", *options, "output=whole", cwd=folder).code == 0
    killed = run("train_search", *options, "output=broken", cwd=folder, at=At(60))
    assert killed.code == -9
    assert run("train_search", *options, "output=broken", "resume=auto", cwd=folder).code == 0
    kept = []
    for output in ("whole", "broken"):
        (search,) = folder.glob(f"{output}/*_search_*")
        records = Journal.read(search / "metrics.jsonl")
        kept.append([{k: v for k, v in r.items() if k not in ("seconds", "items_per_s", "elapsed_s")} for r in records])
    assert kept[0] == kept[1]


@pytest.mark.parametrize("options, message", [
    (["space=darts_rnn"], "recurrent spaces need text"),
    (["space=darts", *TEXT], "recurrent spaces need text"),
    (["space=darts_rnn", "dataset=text", "dataset.path=none.txt"], "no such text"),
    (["space=darts_rnn", *TEXT, "dataset.level=letter"], "level must be character or word"),
    (["space=darts_rnn", *TEXT, "batch_size=4000"], "at least bptt"),
    (["space=darts_rnn", *TEXT, "dataset.val_portion=0.2", "dataset.train_portion=0.9"], "leave a test part"),
    (["space=darts_rnn", "dataset=ptb"], "data/ptb: no such text"),
])
def test_wrong_options_are_one_line(folder, options, message):
    done = run("train_search", *options, cwd=folder)
    lines = done.err.strip().splitlines()
    assert done.code == 2 and len(lines) == 1 and message in lines[0], done.err
