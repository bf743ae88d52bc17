"""Every test begins on the plain path, and leaves the handlers of signals as it found them; and what tests say of themselves in a junit
report, for `python -m benchmarks.methods`."""

import signal

import pytest

from benchmarks.methods import presets
from ops import kernels

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def plain_path():
    kernels.use("plain")


@pytest.fixture(autouse=True)
def handlers():
    """A handler that a test leaves set would be met by a later test of an interrupt, in the same process, which then fails for it."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    changed = {number: handler for number in HANDLED if (handler := signal.getsignal(number)) is not before[number]}
    for number in changed:
        signal.signal(number, before[number] or signal.SIG_DFL)
    assert not changed, f"this test leaves other handlers of signals than it found: {changed}"


def pytest_collection_modifyitems(items):
    known = presets()
    for item in items:
        for mark in item.iter_markers("equation"):
            for method in mark.args:
                if method not in known:
                    raise pytest.UsageError(f"{item.nodeid}: there is no method {method!r} to mark an equation of; there are "
                                            f"{', '.join(known)}")
                item.user_properties.append(("equation", method))
