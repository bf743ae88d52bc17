"""requirements.lock and constraints.txt name the same versions, and the lock a digest of each file."""

import re

import pytest

from tests.helpers import ROOT


def pins(name: str) -> dict[str, str]:
    """By normalised name of a package, its version."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def test_the_lock_has_the_versions_that_are_tested():
    locked = pins("requirements.lock")
    assert {package: locked.get(package) for package in pins("constraints.txt")} == pins("constraints.txt")


def test_each_package_of_the_lock_has_digests_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    entries = re.split(r"^(?=[A-Za-z0-9])", text.partition("make lock\n")[2], flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins("requirements.lock")) > 70
    for entry in entries:
        assert re.fullmatch(r"\S+==\S+( ;[^\\]*)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", entry), entry[:200]


@pytest.mark.parametrize("package", ["torch", "torchvision", "triton", "setuptools"])
def test_what_builds_and_computes_is_in_the_lock(package):
    assert package in pins("requirements.lock")
