"""Tests that run on one backend after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ops import kernels


@contextmanager
def using(backend: str) -> Iterator[None]:
    """Within, `backend` computes; the test is skipped where it is not available."""
    try:
        kernels.use(backend)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        yield
    finally:
        kernels.use("plain")
