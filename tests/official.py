"""Numbers of the official codes (tests/oracles/*.npz), and ours beside them.

Each file holds inputs and what an official code gives for them, in float64 on a CPU: arrays alone. Weights stand in float16, which is
exact, one after the other under our own parameter names; what is not named is a running statistic as it is at the start. A difference is
the largest absolute one over the largest official value.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from supernet.networks.build import search_normalisation
from supernet.relaxations.softmax import Softmax

FOLDER = Path(__file__).parent / "oracles"
TOLERANCE = 1e-9
KINDS = ("normal", "reduce")


def read(name):
    """The arrays of a file by name."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as found:
        return {key: found[key] for key in found.files}


def tensor(a):
    """Floats in float64, all else as it is."""
    a = np.asarray(a)
    return torch.from_numpy(a.astype(np.float64) if a.dtype.kind == "f" else a)


def laid(x):
    """A network or images as native kernels want them; plain ones take them as well."""
    return x.to(memory_format=torch.channels_last)


def batch(oracle, part):
    return laid(tensor(oracle[f"{part}/images"])), tensor(oracle[f"{part}/labels"])


def by_name(oracle, own, group="weights"):
    """{name: tensor} of flat values. own: our tensors by name, for their shapes."""
    found, at, values = {}, 0, tensor(oracle[f"{group}/values"])
    for name in oracle[f"{group}/names"].tolist():
        n = own[name].numel()
        found[name], at = values[at: at + n].view(own[name].shape), at + n
    assert at == len(values)
    return found


def filled(net, oracle, group="weights"):
    """The network with the file's weights, in training mode."""
    missing, unexpected = net.load_state_dict(by_name(oracle, net.state_dict(), group), strict=False)
    assert not unexpected and all(name.endswith(("running_mean", "running_var")) for name in missing), (missing[:3], unexpected[:3])
    return laid(net).train()


def supernet(space, layers, channels, pool_norm="search", **more):
    norm = search_normalisation(pool_norm, "running")
    return space.network(space.candidates(), layers=layers, channels=channels, num_classes=10, norm=norm, **more)


def softmax(space, alphas):
    """The relaxation with these alphas, a table a kind of cell."""
    relaxation = Softmax(space, torch.Generator())
    with torch.no_grad():
        for kind, table in relaxation.alpha.items():
            table.copy_(tensor(alphas[kind]))
    return relaxation


def tables(oracle, prefix, kinds=KINDS):
    return {kind: oracle[f"{prefix}/{kind}"] for kind in kinds}


def slopes(relaxation):
    """Gradients of the alphas by kind."""
    return {kind: p.grad for kind, p in relaxation.alpha.items()}


def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels)


def difference(ours, official):
    ours, official = ours.detach().double(), tensor(official).double()
    assert ours.shape == official.shape
    return ((ours - official).abs().max() / official.abs().max()).item()


def digest_difference(oracle, prefix, named):
    """Of tensors of which the file has the norm and the products with cos(i) and sin(i): the largest difference over the norm."""
    worst = 0.0
    for name, row in zip(oracle[f"{prefix}/names"].tolist(), tensor(oracle[f"{prefix}/digest"])):
        v = named[name].detach().double().reshape(-1)
        i = torch.arange(v.numel(), dtype=torch.float64)
        worst = max(worst, (torch.stack([v.norm(), (v * i.cos()).sum(), (v * i.sin()).sum()]) - row).abs().max().item() / row[0].item())
    return worst


def agree(ours, official, tolerance=TOLERANCE):
    """Asserts that a tensor, or each of a mapping of tensors by kind, is the official one."""
    pairs = [(ours[kind], official[kind]) for kind in official] if isinstance(official, dict) else [(ours, official)]
    for a, b in pairs:
        assert difference(a, b) <= tolerance
