"""Triton's interpreter runs kernels on a CPU. It must be asked for before Triton is first imported, which parts of PyTorch do."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
