"""Where real data lies beside a checkout, and the mark of tests that need it."""

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NB201 = DATA / "nas" / "nb201.csv.gz"
MACRO = DATA / "nas" / "nas_bench_macro_cifar10.json.gz"
SPACES = DATA / "nas" / "spaces_s1_s4.json"
TEXT = DATA / "text" / "tinyshakespeare.txt"


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"needs shared/data/{path.relative_to(DATA)} beside the checkout")
