"""The forms of plain modules whose layers have got other widths than their class says: what is left after channels were pruned.

A module that is a row of layers is written as that row, so that each layer says its own width. Modules that only hold for the widths which
they were made for (`FirstChannels`, `ResidualOfWidth`, `Highway`) have none here, and so are refused by name.
"""

from torch import nn

from ops import plain
from ops.forms import Form, form_of, held, sequence, under


@form_of.register
def _(module: plain.SeparableConv) -> Form:
    return sequence(form_of(module.depthwise1), form_of(module.pointwise1), form_of(module.norm1), Form(nn.ReLU),
                    form_of(module.depthwise2), form_of(module.pointwise2))


@form_of.register
def _(module: plain.DilatedConv) -> Form:
    return sequence(form_of(module.depthwise), form_of(module.pointwise))


@form_of.register
def _(module: plain.InvertedBottleneck) -> Form:
    return sequence(form_of(module.expand), form_of(module.norm1), Form(nn.ReLU), form_of(module.depthwise), form_of(module.norm2),
                    Form(nn.ReLU), form_of(module.project))


@form_of.register
def _(module: plain.Residual) -> Form:
    body = form_of(module.body)
    return Form(plain.Residual, {"body": body}, under(body=body))


@form_of.register
def _(module: plain.HalvedSkip) -> Form:
    even, odd = module.even.out_channels, module.odd.out_channels
    uneven = {} if even == (even + odd) // 2 else {"even": even}
    return Form(plain.HalvedSkip, {"channels_in": module.even.in_channels, "channels_out": even + odd, **uneven}, held(module))


@form_of.register
def _(module: plain.HalvingBlock) -> Form:
    inner, widths = module.conv1.out_channels, {"channels_in": module.shortcut.in_channels, "channels_out": module.shortcut.out_channels}
    return Form(plain.HalvingBlock, widths | ({} if inner == module.shortcut.out_channels else {"inner": inner}), held(module))


@form_of.register
def _(module: plain.SqueezeExcitation) -> Form:
    inner = {"activation": form_of(module.activation), "gate": form_of(module.gate)}
    widths = {"channels": module.reduce.in_channels, "middle": module.reduce.out_channels}
    return Form(plain.SqueezeExcitation, widths | inner, held(module))
