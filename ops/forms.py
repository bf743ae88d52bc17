"""`Form`: a module of plain PyTorch as a value, and `form_of`, which gives that of ours and of `torch.nn`'s modules.

A form says which class with which arguments makes the module, and what it holds. So it can be built, and it can be written down.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn


class NoPlainForm(ValueError):
    """A part of a network has no plain form. The message is one line that names it."""


@dataclass(frozen=True)
class Form:
    """`make(*arguments.values())` with the state dict `tensors`.

    make: a class of `torch.nn` or of `ops.plain`. arguments: by the name of the parameter, in its order; numbers, truth values, text,
    tuples of those, and forms. Those of `VARIADIC` classes (nn.Sequential) are named by position. tensors: detached, as `state_dict`
    names them.
    """

    make: type[nn.Module]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def module(self) -> nn.Module:
        """The module itself, in evaluation mode. Its tensors are copies, of the types that the form's have."""
        inner = {key: value.module() if type(value) is Form else value for key, value in self.arguments.items()}
        with torch.random.fork_rng(devices=[]):  # weights are drawn, and nobody sees them
            made = self.make(*inner.values()) if self.make in VARIADIC else self.make(**inner)
        like = next((t for t in self.tensors.values() if t.is_floating_point()), None)
        made = made if like is None else made.to(like)
        made.load_state_dict(dict(self.tensors))
        return made.eval()

    def classes(self) -> Iterator[type[nn.Module]]:
        """All classes that it is made of."""
        yield self.make
        for value in self.arguments.values():
            if type(value) is Form:
                yield from value.classes()


VARIADIC = frozenset({nn.Sequential})  # classes whose arguments are modules in a row


def under(**parts: "Form | Mapping[str, Tensor]") -> dict[str, Tensor]:
    """The tensors of a module whose attributes have these."""
    return {f"{name}.{key}": value for name, part in parts.items()
            for key, value in (part.tensors if type(part) is Form else part).items()}


def held(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in module.state_dict().items()}


def sequence(*forms: Form) -> Form:
    """One after the other: nothing for identities, rows within rows are one row, and a single one is itself."""
    flat = [part for form in forms for part in (form.arguments.values() if form.make is nn.Sequential else [form])
            if part.make is not nn.Identity]
    if len(flat) < 2:
        return flat[0] if flat else Form(nn.Identity)
    row = {str(n): part for n, part in enumerate(flat)}
    return Form(nn.Sequential, row, under(**row))


@singledispatch
def form_of(part: Any) -> Form:
    """The plain form of a module, or of a prefix; of ours as they say it, of `torch.nn`'s the module itself. One's own module gets one by
    `form_of.register`. Raises NoPlainForm."""
    raise NoPlainForm(f"{type(part).__name__} has no plain form (ops.forms.form_of.register gives it one)")


@form_of.register
def _torchs(module: nn.Module) -> Form:
    """A module of `torch.nn` is made again from its attributes, which are called as its parameters are; whether that is the same module is
    looked at."""
    make = type(module)
    if getattr(nn, make.__name__, None) is not make:
        raise NoPlainForm(f"{make.__name__} has no plain form (ops.forms.form_of.register gives it one)")
    return form_as(make, module)


def form_as(make: type[nn.Module], module: nn.Module) -> Form:
    """`module` as one of `make`, a class of `torch.nn` without modules within. Raises NoPlainForm: its attributes do not make it again."""
    tried = []
    for spelt in (_single, lambda value: value):  # of some what is one number is not what was two
        arguments = {}
        for name, parameter in inspect.signature(make).parameters.items():
            if name not in NOT_KEPT:
                value = getattr(module, name, parameter.default)
                value = spelt(value is not None if name == "bias" else value)
                if value != spelt(parameter.default):
                    arguments[name] = value
        try:
            with torch.device("meta"):  # nothing is drawn, and nothing takes memory
                again = make(**arguments)
        except (TypeError, RuntimeError, AttributeError, ValueError) as error:
            raise NoPlainForm(f"{type(module).__name__} has no plain form: its attributes do not make it again") from error
        same = [{name: value.shape for name, value in one.state_dict().items()} for one in (again, module)]
        if again.extra_repr() == module.extra_repr() and same[0] == same[1]:
            return Form(make, arguments, held(module))
        tried.append(again)
    raise NoPlainForm(f"{type(module).__name__} has no plain form: made again from its attributes it is {tried[0]!r}"[:150])


NOT_KEPT = ("device", "dtype")  # where a tensor lies is not the class's to say


def _single(value: Any) -> Any:
    """3 for (3, 3), as one writes it."""
    return value[0] if type(value) is tuple and len(value) == 2 and value[0] == value[1] else value


@form_of.register
def _row(module: nn.Sequential) -> Form:
    return sequence(*map(form_of, module))
