"""`python -m benchmarks.gpu`: one command that proves and measures everything on a GPU in minutes (docs/gpu.md).

`parts` says what there is, in order of worth; `conductor` runs each part in a process of its own, with a limit; `worker` is that process.
Every result is a line of one journal, on the disk before the next check begins. Without a GPU a stand-in takes its place: the same lines of
code at toy sizes on the CPU, kernels in Triton's interpreter, so that no minute on a card is lost to a typing error.
"""
