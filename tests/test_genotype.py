import json
import random

import pytest

from supernet import genotype as genotypes
from supernet.genotype import Genotype, GenotypeError
from supernet.spaces import darts


@pytest.mark.parametrize("seed", range(10))
def test_json_round_trip(tmp_path, seed):
    g = darts.make().sample(random.Random(seed))
    g.save(tmp_path / "g.json", note="not part of the value")
    again = Genotype.load(tmp_path / "g.json")
    assert again == g and hash(again) == hash(g) and again.digest == g.digest
    assert darts.make(**again.arguments).fingerprint == again.fingerprint


def test_every_published_genotype_is_one_of_its_space():
    names = genotypes.published_names()
    assert len(names) == 67
    for name in names:
        g = genotypes.find(name.upper())
        assert g.space == "darts"
        darts.make(**g.arguments).validate(g)


def good():
    return genotypes.find("darts_v2").to_json()


@pytest.mark.parametrize("text, message", [
    ("<html><body>Not found</body></html>", "not a JSON file"),
    ("[" * 200_000, "not a JSON file"),
    ("[1, 2]", "expected format"),
    (json.dumps(good() | {"format": "other/2"}), "'other/2'"),
    (json.dumps(good() | {"cells": {"normal": [["sep_conv_3x3", 5, 2]]}}), "a cycle"),
    (json.dumps(good() | {"cells": {"normal": [["sep_conv_3x3", "0", 2]]}}), "text, integer, integer"),
    (json.dumps(good() | {"cells": {"normal": 3}}), "expected a list"),
    (json.dumps({k: v for k, v in good().items() if k != "space"}), "'space' must be of type str, got None"),
    ("", "not a JSON file"),
])
def test_files_that_are_no_genotype(tmp_path, text, message):
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(GenotypeError, match=message) as error:
        Genotype.load(tmp_path / "g.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / "g.json", "wb") as f:
        f.truncate(100_000_000)
    with pytest.raises(GenotypeError, match="it has 100,000,000 bytes, and at most 1,000,000 are read"):
        Genotype.load(tmp_path / "g.json")


def test_unknown_names_suggest_known_ones():
    with pytest.raises(GenotypeError, match="darts_v2"):
        genotypes.find("dart_v2")
    with pytest.raises(GenotypeError, match="cannot read the genotype"):
        genotypes.find("/")
