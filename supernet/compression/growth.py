"""`python growth.py FILE N C H W`: how much a process grows that loads an ONNX file and computes N images with it, in bytes. Run alone, so
that nothing of PyTorch is in the process."""

import sys

import numpy as np
import onnxruntime


def resident(name: str) -> int:
    """VmRSS now, or VmHWM, the highest since `clear`, in bytes."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(f"{name}:"))


def clear() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main() -> None:
    path, *shape = sys.argv[1:]
    x = np.zeros([int(n) for n in shape], np.float32)
    x += 1  # its pages are there
    clear()
    before = resident("VmRSS")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {session.get_inputs()[0].name: x})
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main()
