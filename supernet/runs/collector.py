"""Python's collector of garbage while a training runs."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def lasting_objects_passed_over() -> Iterator[None]:
    """Within, the collector does not look at what is there when this begins. A training imports hundreds of thousands of objects, and the
    gradients of each step make the collector walk through all of them every few steps: 0.1 s and more, for nothing. What is made within
    is collected as always."""
    gc.collect()  # what is garbage by now would stay until the end
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
