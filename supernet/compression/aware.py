"""8 bits in training: the network is trained with the rounding of its weights and activations in place (Jacob et al. 2018), by torchao."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from supernet.compression.networks import by
from supernet.exports.formats import quiet
from supernet.exports.readers import Images


def train_aware(module: nn.Module, x: Tensor, train: Callable[[nn.Module], None], path: Path) -> None:
    """Writes the ONNX file of `module` in 8 bits, after `train` has trained it so. x: a batch of two images or more.

    Weights are signed with a scale an output channel, activations unsigned with a moving range, as `int8`; norms are folded into the
    convolution before them as torchao does it (the statistics of the batch train, the running ones are kept). Where an activation or a sum
    stands is decided by torchao's quantiser for x86.
    """
    # errors too: what torchao says of CUDA libraries that it does not find, and of graphs, nobody can act on
    with by("torchao"), quiet(logging.ERROR):
        from torchao.quantization.pt2e import allow_exported_model_train_eval
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )

        shapes = ({0: torch.export.Dim("batch", min=2)},)
        graph = torch.export.export(copy.deepcopy(module).train(), (x,), dynamic_shapes=shapes).module()
        aware = prepare_qat_pt2e(graph, X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True)))
        allow_exported_model_train_eval(aware)
    train(aware)
    with by("torchao"), quiet(logging.ERROR):
        aware.eval()  # torchao's, which returns nothing
        made = convert_pt2e(aware)
        reader = Images()
        names = {"input_names": list(reader.inputs), "output_names": list(reader.outputs)}
        program = torch.onnx.export(made, (x,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), **names,
                                    external_data=False, verbose=False)
        program.save(path, external_data=False)
