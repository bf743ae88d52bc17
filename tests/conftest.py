"""Every test begins on the plain path; and what tests say of themselves in a junit report, for `python -m benchmarks.methods`."""

import pytest

from benchmarks.methods import presets
from ops import kernels


@pytest.fixture(autouse=True)
def plain_path():
    kernels.use("plain")


def pytest_collection_modifyitems(items):
    known = presets()
    for item in items:
        for mark in item.iter_markers("equation"):
            for method in mark.args:
                if method not in known:
                    raise pytest.UsageError(f"{item.nodeid}: there is no method {method!r} to mark an equation of; there are "
                                            f"{', '.join(known)}")
                item.user_properties.append(("equation", method))
