"""Networks, weights and steps of a search that tests of several files build. No configs: `searches.py` has what needs them."""

import torch
import torch.nn.functional as F

from ops.op import BatchNorm, Normalisation
from supernet.bilevel import Bilevel
from supernet.hypergradients.first_order import first_order
from supernet.spaces import darts
from supernet.tasks.classification import Classification
from supernet.weights import EdgeWeights, Weights
from tests import reference

SEARCH, FINAL = Normalisation(affine=False, after_pools=True), Normalisation(affine=True, after_pools=False)  # of networks


def build(space, candidates=None, *, layers=4, channels=4, norm=SEARCH, seed=0, **sizes):
    torch.manual_seed(seed)
    return space.network(candidates or space.candidates(), layers=layers, channels=channels, num_classes=5, norm=norm, **sizes).double()


def with_statistics(net, seed=0):
    """The same network with batch norms as after a training: factors, offsets and running statistics are random."""
    g = torch.Generator().manual_seed(seed)
    for norm in (m for m in net.modules() if type(m) is BatchNorm):
        for value, low in ((norm.weight, 0.5), (norm.bias, -0.5), (norm.running_mean, -0.5), (norm.running_var, 0.5)):
            if value is not None:
                value.data.copy_(low + torch.rand(norm.channels, generator=g))
    return net


def random_weights(space, seed=1, active=False):
    g = torch.Generator().manual_seed(seed)
    kinds = {}
    for kind, spec in space.cells.items():
        table = torch.rand(len(spec.edges), len(spec.ops), generator=g, dtype=torch.float64).requires_grad_()
        mask = tuple(map(tuple, (torch.rand(table.shape, generator=g) < 0.4).tolist())) if active else None
        kinds[kind] = Weights(table, active=mask)
    return EdgeWeights(kinds)


def compare(net, ref, weights, x, y, tolerance=1e-10):
    """Ours with its edge-by-edge reference: output, gradients of the weight tables, of every parameter and of the input."""
    tables = [] if weights is None else [w.ops for w in weights.values()]
    results = []
    for model in (net, ref):
        inputs = x.clone().requires_grad_()
        out = model(inputs, weights)
        parameters = list(model.parameters())
        grads = torch.autograd.grad(F.cross_entropy(out, y), [inputs, *tables, *parameters], allow_unused=True, materialize_grads=True)
        results.append((out, grads[: 1 + len(tables)], dict(zip(parameters, grads[1 + len(tables):]))))
    (out, some, by_parameter), (out_ref, some_ref, by_parameter_ref) = results
    reference.close(out, out_ref, tolerance)
    for a, b in zip(some, some_ref):
        reference.close(a, b, tolerance)
    for ours, theirs in reference.parameters_side_by_side(net, ref):
        reference.close(by_parameter[ours], by_parameter_ref[theirs], tolerance)


def small_search(relaxation_of, seed=0, **network):
    """A small DARTS supernet in float64 with a batch of random images, as a search."""
    space = darts.make(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3"))
    torch.manual_seed(seed)
    net = space.network(space.candidates(), layers=3, channels=4, num_classes=3, in_channels=2, image_size=(8, 8),
                        norm=Normalisation(False, True), **network).double()
    relaxation = relaxation_of(space, _generator(seed)).double()
    g = _generator(seed + 1)
    batch = (torch.randn(6, 2, 8, 8, generator=g, dtype=torch.float64), torch.randint(3, (6,), generator=g))
    generators = {"alpha": _generator(seed + 2), "net": _generator(seed + 3)}
    alpha = list(relaxation.parameters())
    search = Bilevel(net, relaxation, first_order, Classification(), torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9),
                     torch.optim.Adam(alpha, lr=3e-3) if alpha else None, generators)
    return search, batch, space


def _generator(seed):
    return torch.Generator().manual_seed(seed)
