"""Several processes take the steps that one would take, and nothing of theirs drifts apart. What the processes run is in `ranks.py`."""

import pytest
import torch

from supernet.processes.group import ALONE, digest
from tests import ranks

# By a central difference of weights' gradients around tiny radii: it divides rounding by them. Without the mean over the processes the
# differences are as large as the numbers.
TOLERANCE = {"layer_alignment": 1e-4}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return ranks.found_by(2, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def rest(tmp_path_factory):
    return ranks.found_by(2, tmp_path_factory.mktemp("rest"), "rest")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return ranks.found_by(3, tmp_path_factory.mktemp("three"))


@pytest.fixture
def of_case(case, request):
    """What the two found of a case; those beside the heart of it are for the slow tests."""
    return [found[case] for found in request.getfixturevalue("both" if case in ranks.HEART else "rest")]


def cases(*groups):
    return [case if case in ranks.HEART else pytest.param(case, marks=pytest.mark.slow) for group in groups for case in group]


def assert_steps_of_one(case, found):
    """That what processes found of a case is what one finds."""
    one, two = dict(ranks.numbers(ranks.EXACT[case](ALONE))), dict(ranks.numbers(found))
    assert one.keys() == two.keys() and len(one) > 1
    for at, value in one.items():
        largest = max(1.0, float(value.abs().max())) if value.numel() else 1.0
        tolerance = TOLERANCE.get(case, 1e-9) * largest
        torch.testing.assert_close(two[at], value, rtol=0, atol=tolerance, msg=lambda text, at=at: f"{at}: {text}")


@pytest.mark.parametrize("case", cases(ranks.EXACT))
def test_two_processes_with_half_a_batch_each_take_the_steps_of_one_with_the_whole(of_case, case):
    assert_steps_of_one(case, of_case[0])


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in ranks.EXACT if case in ranks.HEART])
def test_so_do_three_processes_of_whose_last_batch_two_have_nothing(three, case):
    assert_steps_of_one(case, three[0][case])
    assert digest(three[0][case]) == digest(three[1][case]) == digest(three[2][case])


@pytest.mark.parametrize("case", cases(ranks.EXACT, ranks.DRIFT))
def test_what_the_processes_hold_is_the_same_in_both_bit_for_bit(of_case, case):
    assert digest(of_case[0]) == digest(of_case[1])


def test_normalising_by_a_part_of_the_batch_is_something_else(both):
    """Else the cases above would say nothing of what is shared."""
    assert digest(both[0]["local_norms"]["net"]) != digest(both[0]["finite_difference"]["net"])


@pytest.mark.slow
def test_a_compiled_network_takes_the_steps_of_one_that_is_not(rest):
    compiled, other = (dict(ranks.numbers(rest[0][case])) for case in ("final_compiled", "final_by_local_norms"))
    assert compiled.keys() == other.keys()
    for at, value in other.items():
        torch.testing.assert_close(compiled[at], value, rtol=0, atol=1e-9, msg=lambda text, at=at: f"{at}: {text}")


@pytest.mark.slow
def test_freezing_freezes_some_ops_in_the_cases_above(rest):
    assert 0 < len(rest[0]["op_freezing"]["monitor"]["frozen"]) < len(rest[0]["op_freezing"]["monitor"]["means"])


def test_a_batch_with_fewer_images_than_processes_is_one_images_alone(both):
    assert both[0]["parts"] == [[4, 7, 4], [4, 7, 4], [1, 1, 1]]
    assert both[1]["parts"] == [[3, 7, 3], [3, 7, 3], [0, 1, 1]]  # its one image stands in, and does not count


@pytest.mark.slow
def test_of_three_processes_all_but_one_stand_in(three):
    assert [found["parts"] for found in three] == [[[3, 7, 3], [3, 7, 3], [1, 1, 1]]] + [[[2, 7, 2], [2, 7, 2], [0, 1, 1]]] * 2


def test_crops_and_alternating_flips_are_those_of_whole_batches(both):
    for whole, *parts in zip(ranks.cropped(ALONE), both[0]["cropped"], both[1]["cropped"], strict=True):
        assert [torch.equal(x, torch.cat(own)) for x, *own in zip(whole, *parts, strict=True)] == [True] * 3


def test_a_cost_that_is_measured_is_what_the_first_process_measures(both):
    assert both[0]["measured_cost"] == both[1]["measured_cost"] == {"cost": [1.5, 1.5]}


def test_numbers_that_are_not_finite_in_one_process_end_both_with_its_words(both):
    assert both[0]["diverging"] == both[1]["diverging"]
    assert both[0]["diverging"] == ("the training loss is nan in epoch 1, step 7 of the run: the batch's images hold values that are not "
                                    "finite")


def test_a_bit_that_differs_is_told_with_the_part_it_is_in(both):
    assert both[0]["drifting"] == both[1]["drifting"]
    assert both[0]["drifting"].startswith("'relaxation' is not the same in all 2 processes: process 1 differs from process 0")


def test_no_thread_of_a_group_outlives_it(both):
    """One that still has a tensor in hand when the interpreter ends aborts its process, after all was done. (Linux names threads.)"""
    assert [name for found in both for name in found["threads"] if "gloo" in name] == []


def test_what_is_decided_together_is_what_any_of_them_says(both):
    assert both[0]["largest"] == both[1]["largest"] == (3.0, 1.0)
    assert both[0]["texts"] == both[1]["texts"] == ["of 0", "of 1"]


def test_a_checkpoint_that_is_due_by_one_clock_and_a_signal_to_one_process_are_heard_by_both(both):
    assert both[0]["asked_to_stop"] == both[1]["asked_to_stop"] == [(False, True), (True, False), 128 + 15]


def test_a_step_sums_up_what_the_docs_say_it_does(both):
    """docs/processes.md, in float64; and three numbers for the record."""
    for name, times, messages in (("traffic", 1, 4), ("traffic twice", 3, 6)):
        weights, alphas, channels = both[0][name]["sizes"]
        assert both[0][name]["seen"] == [8 * (times * weights + 2 * channels + alphas) + 24, messages]
