"""The plain form of every op, layer and block: ordinary PyTorch, which is a slow reference of them all."""

import ast
import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ops import OPS, make_op, plain
from ops.activations import ACTIVATIONS, AS_MODULES
from ops.conv import factorised_reduce, relu_conv_bn
from ops.forms import Form, NoPlainForm, form_of, sequence, under
from ops.mobile import LAYERS, PLAIN_POOLS, POOLS
from ops.op import BatchNorm, Normalisation, Op
from supernet.networks.residual import ResidualBlock
from tests.builders import with_statistics

NORMS = [Normalisation(True, False), Normalisation(False, True), Normalisation(True, True, running_statistics=False)]
WITHOUT = {"none": "the absence of an edge", "noise": "noise is drawn at every forward"}
DOUBLE = torch.float64


def images(channels: int, height: int = 7, width: int = 6) -> Tensor:
    return torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def assert_same(ours: nn.Module, x: Tensor) -> None:
    ours = with_statistics(ours).double().eval()
    theirs = form_of(ours).module()
    assert not any(type(m).__module__.startswith(("ops.", "supernet.")) and type(m).__module__ != "ops.plain" for m in theirs.modules())
    torch.testing.assert_close(theirs(x), ours(x), rtol=0, atol=1e-12)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


@pytest.mark.parametrize("norm", NORMS, ids=["affine", "search", "by_batch"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in OPS if name not in WITHOUT])
def test_an_op_computes_what_its_plain_form_computes(name, stride, norm):
    assert_same(make_op(name, 6, stride, norm), images(6))


@pytest.mark.parametrize("norm", NORMS, ids=["affine", "search", "by_batch"])
@pytest.mark.parametrize("shape", [(6, 6, 1), (6, 8, 1), (6, 8, 2)])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_a_chain_computes_what_its_plain_form_computes(name, shape, norm):
    assert_same(LAYERS[name](*shape, norm), images(6))


@pytest.mark.parametrize("make", [partial(factorised_reduce, 4, 7), partial(relu_conv_bn, 4, 6, size=3, stride=2),
                                  partial(relu_conv_bn, 4, 6), partial(ResidualBlock, 4, 8)])
def test_what_stands_between_cells_computes_what_its_plain_form_computes(make):
    ours = make(norm=NORMS[0])
    with_statistics(ours).double().eval()
    torch.testing.assert_close(ours.plain().module()(images(4)), ours(images(4)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WITHOUT)
def test_an_op_without_a_plain_form_says_why(name):
    with pytest.raises(NoPlainForm, match=WITHOUT[name]):
        make_op(name, 4, 1, NORMS[0]).plain()


def test_activations_and_poolings_are_the_same_as_modules():
    x = images(4)
    assert list(AS_MODULES) == list(ACTIVATIONS) and list(PLAIN_POOLS) == list(POOLS)
    for name, function in ACTIVATIONS.items():
        torch.testing.assert_close(AS_MODULES[name]()(x), function(x), rtol=0, atol=0)
    for name, function in POOLS.items():
        torch.testing.assert_close(PLAIN_POOLS[name].module()(x), function(x), rtol=0, atol=0)


def test_an_op_of_modules_of_pytorch_has_a_plain_form_by_itself():
    body = nn.Sequential(nn.Conv2d(4, 8, (3, 1), padding=(1, 0), groups=2), nn.GELU("tanh"), nn.Sequential(nn.GroupNorm(2, 8), nn.PReLU()),
                         nn.Conv2d(8, 4, 1))
    assert_same(Op(body, norm=BatchNorm(4, affine=True, eps=1e-3, momentum=0.2)), images(4))
    assert "eps=0.001, momentum=0.2" in repr(Op(norm=BatchNorm(4, affine=True, eps=1e-3, momentum=0.2)).plain().module())


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + x


def test_a_module_of_ones_own_is_refused_by_name_until_it_has_one():
    class Known(Own):
        pass

    with pytest.raises(NoPlainForm, match="Known has no plain form"):
        Op(Known()).plain()

    @form_of.register
    def _(module: Known) -> Form:
        conv = form_of(module.conv)
        return Form(plain.Residual, {"body": conv}, under(body=conv))

    assert_same(Op(Known()), images(4))


@pytest.mark.parametrize("method", ["compute", "finish", "forward"])
def test_an_op_that_computes_in_its_own_way_must_say_its_plain_form(method):
    own = type("Twice", (Op,), {method: lambda self, *arguments: 2 * getattr(Op, method)(self, *arguments)})
    with pytest.raises(NoPlainForm, match=f"Twice has no plain form: it has a {method}\\(\\) of its own"):
        own(nn.Conv2d(4, 4, 1)).plain()


def test_a_module_that_its_attributes_do_not_make_again_is_refused():
    with pytest.raises(NoPlainForm, match="TransformerEncoder has no plain form: its attributes"):
        form_of(nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, batch_first=True), 1))
    changed = nn.Conv2d(4, 4, 3)
    changed.weight = nn.Parameter(torch.zeros(5, 4, 3, 3))
    with pytest.raises(NoPlainForm, match="Conv2d has no plain form: made again"):
        form_of(changed)


def test_forms_draw_nothing_and_share_nothing():
    op = make_op("sep_conv_3x3", 4, 1, NORMS[0])
    before = torch.get_rng_state()
    made = op.plain().module()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        next(made.parameters()).add_(1)
    assert not torch.equal(next(made.parameters()), next(op.parameters()))


def test_a_row_in_a_row_is_one_row_and_identities_are_nothing():
    relu, identity = Form(nn.ReLU), Form(nn.Identity)
    assert sequence() == sequence(identity, identity) == identity and sequence(relu, identity) == relu
    assert list(sequence(sequence(relu, relu), identity, relu).arguments) == ["0", "1", "2"]


def test_the_classes_that_are_written_into_files_stand_alone():
    """Each uses torch, `nn`, `F` and what Python has, and no other name of their module."""
    tree = ast.parse(Path(inspect.getfile(plain)).read_text())
    assert {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names} == {"torch", "torch.nn.functional"}
    assert {node.module for node in tree.body if isinstance(node, ast.ImportFrom)} == {"torch", "typing"}
    known = {"torch", "nn", "F", "Tensor", "Any", "int", "bool", "super"}
    for made in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        own = {argument.arg for node in ast.walk(made) if isinstance(node, ast.arguments) for argument in
               [*node.args, *([node.kwarg] if node.kwarg else [])]}
        own |= {node.id for node in ast.walk(made) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        assert {node.id for node in ast.walk(made) if isinstance(node, ast.Name)} <= known | own, made.name
