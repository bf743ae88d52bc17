"""The one module through which the project imports torchvision."""

import importlib
import sys
from types import ModuleType

import torch

MISSING_NMS = "operator torchvision::nms does not exist"
SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))
_declared: list[torch.library.Library] = []  # a declaration lasts as long as its Library object


def import_torchvision() -> ModuleType:
    """torchvision, or ImportError when it is not installed.

    PyPI's torchvision is built against a CUDA torch; beside a CPU build its compiled operators do not load and the import stops
    at the first one it names, nms (pytorch/vision#9337). On exactly that error the operators that the import names are declared
    and it is tried again: data sets and transforms then work, box operators do not. With a matching build this is a plain import.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if str(error) != MISSING_NMS:
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left half made
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _declared.append(library)
    return importlib.import_module("torchvision")
