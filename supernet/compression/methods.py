"""The methods by name, and how several stand behind each other: `prune+int8` is the pruned network in 8 bits.

No PyTorch is imported here, so that a wrong name is told at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from supernet.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

ONNX = ("onnx", "onnxscript", "onnxruntime")
JOINS = "+"
EXTRA = "compress"
FLOAT = "float32"  # the name of the network as it was trained
Steps = tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """Numbers that methods read. share: of the channels that is taken out; sparsity: of the weights that become zero; calibration:
    images of the training part; calibrate: of `int8.CALIBRATIONS`; qat_minutes: that a training in 8 bits may take."""

    share: float = 0.5
    sparsity: float = 0.8
    calibration: int = 256
    calibrate: str = "minmax"
    qat_minutes: float = 10.0


class Bench(Protocol):
    """What a method is handed beside the network. x: two images as the network reads them, on the CPU."""

    settings: Settings
    x: "Tensor"

    def tune(self, module: "nn.Module", budget_s: float | None = None) -> None:
        """Trains it by the run's own loop, in place. Raises NotPractical: it would take longer than the budget."""

    def images(self) -> "Sequence[Tensor]":
        """Training images, not augmented, in batches on the CPU: as many as the settings say."""


@dataclass(frozen=True)
class Method:
    """apply: (module, bench, path) changes the module in place; where `ends` it leaves it, and writes the network in 8 bits to `path`.
    packages: by the names that they are imported as. reads: the settings that its result depends on. trains: whether it is followed by
    training, so that it can learn of a teacher. narrows: whether layers have other widths afterwards. after: methods that may stand before
    it."""

    packages: Sequence[str]
    reads: Sequence[str]
    trains: bool
    narrows: bool
    ends: bool
    after: Sequence[str]
    told: Callable[[Settings], str]
    apply: "Callable[[nn.Module, Bench, Path], None]"


def _prune(module: "nn.Module", bench: Bench, path: Path) -> None:
    from supernet.compression.structured import prune_channels

    prune_channels(module, bench.x, bench.settings.share)
    bench.tune(module)


def _magnitude(module: "nn.Module", bench: Bench, path: Path) -> None:
    from supernet.compression.magnitude import mask_smallest, unmask

    mask_smallest(module, bench.settings.sparsity)
    bench.tune(module)
    unmask(module)


def _int8(module: "nn.Module", bench: Bench, path: Path) -> None:
    from supernet.compression.int8 import quantise_static, write_float

    source = path.with_suffix(".float.onnx")
    write_float(module, bench.x, source)
    quantise_static(source, path, bench.images(), bench.settings.calibrate)
    source.unlink()


def _qat(module: "nn.Module", bench: Bench, path: Path) -> None:
    from supernet.compression.aware import train_aware

    train_aware(module, bench.x, lambda aware: bench.tune(aware, 60 * bench.settings.qat_minutes), path)


METHODS: dict[str, Method] = {
    "prune": Method(("torch_pruning",), ["share"], True, True, False, (),
                    lambda s: f"{100 * s.share:g} % of the channels taken out", _prune),
    "magnitude": Method((), ["sparsity"], True, False, False, ("prune",),
                        lambda s: f"{100 * s.sparsity:g} % of the weights zero", _magnitude),
    "int8": Method(ONNX, ["calibration", "calibrate"], False, False, True, ("prune", "magnitude"),
                   lambda s: f"8 bits, ranges from {s.calibration} training images", _int8),
    "qat": Method((*ONNX, "torchao"), ["qat_minutes"], True, False, True, ("prune",), lambda s: "8 bits, trained so", _qat),
}
SHOWN = {"share", "sparsity"}  # settings that stand in a result's name


def steps_of(text: str) -> Steps:
    """`prune+int8` as its methods. Raises UsageError: there is no such, or they cannot stand so."""
    steps = tuple(text.split(JOINS))
    for n, name in enumerate(steps):
        if name not in METHODS:
            raise UsageError(f"method must be of {', '.join(METHODS)}, or several joined as prune+int8, got {name[:40]!r}"
                             f"{did_you_mean(name, METHODS)}")
        if wrong := [before for before in steps[:n] if before not in METHODS[name].after]:
            first = " or ".join(METHODS[name].after) or "nothing"
            raise UsageError(f"method={text}: before {name} there can be {first}, got {wrong[0]}")
    return steps


def with_prefixes(chosen: Iterable[Steps]) -> list[Steps]:
    """All that must be made, each after what it is made of; the network itself, `()`, first."""
    return list(dict.fromkeys([(), *(steps[:n] for steps in chosen for n in range(1, len(steps) + 1))]))


def trains(steps: Steps) -> bool:
    return any(METHODS[name].trains for name in steps)


def narrows(steps: Steps) -> bool:
    return any(METHODS[name].narrows for name in steps)


def ends(steps: Steps) -> bool:
    """Whether what is made is in 8 bits, and no module any more."""
    return bool(steps) and METHODS[steps[-1]].ends


def name_of(steps: Steps, settings: Settings, distilled: bool) -> str:
    """`prune_0.5_int8_distilled`: of a folder too."""
    words = [f"{name}{''.join(f'_{getattr(settings, key):g}' for key in METHODS[name].reads if key in SHOWN)}" for name in steps]
    return "_".join([*words, *(["distilled"] if distilled and trains(steps) else [])]) or FLOAT


def told(steps: Steps, settings: Settings, distilled: bool, epochs: int) -> str:
    """What was done, in words. epochs: of each training."""
    further = f", {epochs} epoch{'s' if epochs != 1 else ''} further"
    words = [METHODS[name].told(settings) + (further if METHODS[name].trains else "") for name in steps] or ["as it was trained"]
    return ", then ".join(words) + (", taught by the teacher" if distilled and trains(steps) else "")


def read_by(steps: Steps, settings: Settings) -> dict[str, Any]:
    """The settings that the result of these methods depends on."""
    return {f"{name}.{key}": getattr(settings, key) for name in steps for key in METHODS[name].reads}


def packages(chosen: Iterable[Steps]) -> list[str]:
    """All that these need, each once."""
    return list(dict.fromkeys(package for steps in chosen for name in steps for package in METHODS[name].packages))
