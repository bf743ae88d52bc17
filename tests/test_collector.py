import gc
import weakref

import pytest

from supernet.runs.collector import lasting_objects_passed_over


class Ring:
    def __init__(self):
        self.own = self


def test_the_collector_passes_over_what_was_there_and_still_frees_what_comes_after():
    before, lasting = gc.get_freeze_count(), Ring()
    old = weakref.ref(lasting)
    with lasting_objects_passed_over():
        assert gc.get_freeze_count() > before
        new = weakref.ref(Ring())
        del lasting
        gc.collect()
        assert new() is None and old() is not None
    gc.collect()
    assert old() is None


def test_what_was_garbage_before_is_freed_and_an_error_leaves_nothing_frozen():
    gone, lasting = weakref.ref(Ring()), Ring()
    kept = weakref.ref(lasting)
    with pytest.raises(KeyboardInterrupt), lasting_objects_passed_over():
        assert gone() is None
        raise KeyboardInterrupt
    del lasting
    gc.collect()
    assert kept() is None
