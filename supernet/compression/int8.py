"""8 bits after training: weights and activations of an ONNX file, by ONNX Runtime."""

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from supernet.compression.networks import by
from supernet.exports.formats import FORMATS, quiet
from supernet.exports.readers import Images

CALIBRATIONS = ("minmax", "entropy", "percentile")  # how the range of an activation is found on the calibration images


def write_float(module: nn.Module, x: Tensor, path: Path) -> None:
    """The network as ONNX, of any batch. x: two images or more."""
    reader = Images()
    with by("the exporter to ONNX"):
        FORMATS["onnx"].write(module, (x,), reader.inputs, reader.outputs, True, path)


def quantise_static(source: Path, target: Path, batches: Sequence[Tensor], calibrate: str = "minmax") -> None:
    """The float network `source` in 8 bits: weights signed, a scale an output channel; activations unsigned, a scale each, from the ranges
    that they have on `batches` (N, C, H, W), at least one. Layers are written as quantise and dequantise around a float one (QDQ), which
    ONNX Runtime computes in whole numbers where it can."""
    with by("ONNX Runtime"), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self.left = iter(batches)

            def get_next(self) -> dict | None:
                batch = next(self.left, None)
                return None if batch is None else {next(iter(Images.inputs)): batch.numpy()}

        methods = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy, "percentile": CalibrationMethod.Percentile}
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            logging.disable(logging.ERROR)  # it warns of each norm that stands alone, whose scale is not one a channel
            quantize_static(str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8, calibrate_method=methods[calibrate])
