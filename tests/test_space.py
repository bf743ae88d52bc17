import math
import random
from collections import Counter

import pytest

from supernet.genotype import Edge, Genotype, GenotypeError
from supernet.space import CellSpec, Space
from supernet.spaces import darts, layerwise, nasbench201


def tiny(**options):
    """Small enough to enumerate."""
    spec = CellSpec.full(num_inputs=2, num_nodes=2, ops=("none", "a", "b"), outputs=(2, 3), unselectable=("none",), **options)
    return Space("tiny", {}, {"normal": spec}, build=None)


SPACES = {"two edges": tiny(keep=(2, 2)), "all edges": tiny(keep=None), "varying": tiny(keep=(0, 2)),
          "parallel": tiny(keep=(2, 2), parallel=2), "two ops an edge": tiny(keep=(2, 2), ops_per_edge=2),
          "up to two ops an edge": tiny(keep=(1, 3), ops_per_edge=2)}


def test_golden_facts_of_the_darts_space():
    space = darts.make()
    assert [len(s.edges) for s in space.cells.values()] == [14, 14]
    assert space.count() == (math.prod(math.comb(n, 2) * 7**2 for n in (2, 3, 4, 5))) ** 2  # about 10^18, Sec. 3.1.1


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_count_and_sample_agree_with_enumeration(space):
    every = list(space.enumerate())
    assert len(set(every)) == len(every) == space.count()
    rng = random.Random(0)
    n = 40 * len(every) if len(every) < 500 else 4000
    drawn = Counter(space.sample(rng) for _ in range(n))
    assert set(drawn) <= set(every)
    if len(every) < 500:  # uniform: chi-squared within five standard deviations
        expected = n / len(every)
        chi2 = sum((drawn[g] - expected) ** 2 / expected for g in every)
        assert abs(chi2 - (len(every) - 1)) < 5 * math.sqrt(2 * len(every))


@pytest.mark.parametrize("space", [*SPACES.values(), darts.make()], ids=[*SPACES, "darts"])
def test_changes_stay_in_the_space(space):
    rng = random.Random(1)
    for _ in range(20):
        a, b = space.sample(rng), space.sample(rng)
        mutant, child = space.mutate(a, rng), space.crossover(a, b, rng)
        assert mutant != a and mutant in set(space.neighbours(a))
        assert a in set(space.neighbours(mutant))
        assert all(gene in parents for gene, *parents in zip(space.genes(child), space.genes(a), space.genes(b)))
        neighbours = list(space.neighbours(a))
        assert len(set(neighbours)) == len(neighbours) and a not in neighbours


@pytest.mark.parametrize("space", [*SPACES.values(), darts.make(), nasbench201.make(), layerwise.make()],
                         ids=[*SPACES, "darts", "nasbench201", "layerwise"])
def test_children_are_made_of_their_parents_genes(space):
    rng = random.Random(2)
    for _ in range(20):
        a, b = space.sample(rng), space.sample(rng)
        assert [edge for _, gene in space.genes(a) for edge in gene] == [edge for _, edges in a.cells for edge in edges]
        assert space.crossover(a, a, rng) == space.crossover_one_point(a, a, rng) == a == space.mutate_each(a, rng, 0.0)
        child = space.crossover_one_point(a, b, rng)
        first, second, own = space.genes(a), space.genes(b), space.genes(child)
        assert any(own == [*first[:point], *second[point:]] for point in range(1, max(2, len(first))))
        space.validate(space.mutate_each(a, rng, 0.5))


def test_a_node_that_keeps_all_its_edges_has_one_gene_for_each_and_others_one_in_all():
    rng = random.Random(3)
    assert [len(space.genes(space.sample(rng))) for space in (nasbench201.make(), darts.make(), SPACES["parallel"])] == [6, 10, 2]


def test_each_edge_is_mutated_with_the_probability_alone():
    space, rng, n = nasbench201.make(), random.Random(4), 4000
    start = space.sample(rng)
    changed = Counter(len(set(start["cell"]) - set(space.mutate_each(start, rng, 0.2)["cell"])) for _ in range(n))
    for k in range(4):  # binomial, within five standard deviations
        p = math.comb(6, k) * 0.2**k * 0.8 ** (6 - k)
        assert abs(changed[k] - n * p) < 5 * math.sqrt(n * p * (1 - p))
    assert {space.mutate_each(start, rng, 1.0) for _ in range(9)}.isdisjoint({start})


@pytest.mark.parametrize("space", [*SPACES.values(), darts.make(), nasbench201.make()], ids=[*SPACES, "darts", "nasbench201"])
def test_a_mutation_is_a_uniform_draw_from_the_neighbours(space):
    rng = random.Random(5)
    start = space.sample(rng)
    neighbours = list(space.neighbours(start))
    n = 40 * len(neighbours)
    drawn = Counter(space.mutate(start, rng) for _ in range(n))
    assert set(drawn) <= set(neighbours)
    chi2 = sum((drawn[g] - 40) ** 2 / 40 for g in neighbours)
    assert abs(chi2 - (len(neighbours) - 1)) < 5 * math.sqrt(2 * len(neighbours))


def test_mutations_reach_the_whole_space():
    space = SPACES["two edges"]
    seen, frontier = set(), [next(space.enumerate())]
    while frontier:
        g = frontier.pop()
        if g not in seen:
            seen.add(g)
            frontier += space.neighbours(g)
    assert len(seen) == space.count()


@pytest.mark.parametrize("change, message", [
    (lambda c: c["normal"].pop(), "must keep 2 edges, the genotype gives it 1"),
    (lambda c: c["normal"].append(Edge(5, 4, "skip_connect")), "must keep 2 edges, the genotype gives it 3"),
    (lambda c: c["normal"].__setitem__(0, Edge(2, 0, "none")), "op must be one of"),
    (lambda c: c["normal"].__setitem__(0, Edge(2, 0, "<script>alert(1)</script>")), "op must be one of .* got '<script>"),
    (lambda c: c["normal"].__setitem__(0, Edge(9, 0, "skip_connect")), "computed nodes are 2 to 5"),
    (lambda c: c["normal"].__setitem__(1, c["normal"][0]), r"at most 1 edge\(s\)"),
    (lambda c: c.pop("reduce"), "has cells"),
])
def test_validate_says_what_is_wrong_in_one_line(change, message):
    space = darts.make()
    cells = {k: list(v) for k, v in space.sample(random.Random(0)).cells}
    change(cells)
    with pytest.raises(GenotypeError, match=message) as error:
        space.genotype(cells)
    assert "\n" not in str(error.value)


def test_one_edge_may_hold_two_different_ops_where_the_space_says_so():
    space = darts.make(ops_per_edge=2)
    cells = {k: list(v) for k, v in darts.make().sample(random.Random(0)).cells}
    cells["normal"][:2] = [Edge(2, 1, "sep_conv_3x3"), Edge(2, 1, "skip_connect")]
    genotype = space.genotype(cells)
    assert Genotype.from_json(genotype.to_json()) == genotype == space.parse(space.text(genotype))
    row = space.cells["normal"].edges.index((1, 2))
    held = [op for op, is_held in zip(darts.OPS, space.candidates(genotype)["normal"][row]) if is_held]
    assert held == ["skip_connect", "sep_conv_3x3"]
    with pytest.raises(GenotypeError, match="at most 1 edge"):
        darts.make().genotype(cells)
    cells["normal"][1] = cells["normal"][0]
    with pytest.raises(GenotypeError, match="different ops of one edge"):
        space.genotype(cells)
    assert space.count() == math.prod(math.comb(7 * n, 2) for n in (2, 3, 4, 5)) ** 2


def test_a_genotype_of_another_space_is_refused():
    with pytest.raises(GenotypeError, match="not of 'darts'"):
        darts.make().validate(darts.make(nodes=3).sample(random.Random(0)))


def test_fingerprint_depends_on_what_is_allowed_only():
    assert darts.make().fingerprint == darts.make(edges_per_node=[2, 2]).fingerprint
    changed = [darts.make(nodes=3), darts.make(edges_per_node=None), darts.make(none_selectable=True), darts.make(ops=darts.OPS[1:]),
               darts.make(concat={"normal": [4, 5]}), darts.make(parallel=2), darts.make(ops_per_edge=2)]
    assert len({s.fingerprint for s in [darts.make(), *changed]}) == 8
    assert darts.make().fingerprint == "8238bd3fab420ec0", "genotypes that were saved stay valid"


@pytest.mark.parametrize("options, message", [
    ({"nodes": 0}, "nodes must be at least 1 and at most 32, got 0"), ({"edges_per_node": 0}, "edges_per_node"),
    ({"ops": ["none"]}, "ops must be"),
    ({"concat": {"normal": [7]}}, "concat"), ({"parallel": 0}, "parallel"),
    ({"ops_per_edge": 0}, "ops_per_edge must be at least 1"), ({"ops_per_edge": 2, "parallel": 2}, "ops_per_edge must be .* got 2 with"),
])
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        darts.make(**options)


@pytest.mark.parametrize("space", [*SPACES.values(), darts.make()], ids=[*SPACES, "darts"])
def test_text_round_trips(space):
    rng = random.Random(0)
    drawn = {space.sample(rng) for _ in range(200)}
    assert len({space.text(g) for g in drawn}) == len(drawn)
    assert all(space.parse(space.text(g)) == g == space.canonical(g) for g in drawn)


def test_text_is_the_notation_of_nas_bench_201():
    spec = CellSpec.full(num_inputs=1, num_nodes=3, ops=("none", "skip_connect"), outputs=(3,), keep=None)
    space = Space("three", {}, {"cell": spec}, build=None)
    text = "|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|none~2|"
    assert space.text(space.parse(text)) == text


@pytest.mark.parametrize("text", ["", "|a~0|", "|a~0|+|", "|a~0|+b~0", "|a~0|+|a|b~0|", "|a~-1|+|a~0|", "|x~0|b~1|+|a~0|b~1|",
                                  "other:|a~0|b~1|+|a~0|b~1|", "|a~²|b~1|+|a~0|b~1|"])
def test_text_that_is_no_genotype_is_refused_in_one_line(text):
    with pytest.raises(GenotypeError) as error:
        SPACES["two edges"].parse(text)
    assert "\n" not in str(error.value)


def test_parallel_edges_of_different_ops_are_refused_since_a_genotype_cannot_tell_them_apart():
    with pytest.raises(ValueError, match="^parallel edges must have the same selectable ops, not so 0 -> 1$"):
        CellSpec.listed(num_inputs=1, edges=[(0, 1, ["a", "b"]), (0, 1, ["c"])], outputs=[1], keep=None)
    assert CellSpec.listed(num_inputs=1, edges=[(0, 1, ["a", "b"]), (0, 1, ["a", "b"])], outputs=[1], keep=None).edges == ((0, 1), (0, 1))
