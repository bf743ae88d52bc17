"""Hostile input for every reader of the project: what is tried (`targets`), how inputs are made (`mutations`), and what must hold
(`oracle`). `tests/test_fuzzing.py` tries a few of each; `make fuzz` (`python -m tests.fuzzing.longer`) many, guided by coverage."""
