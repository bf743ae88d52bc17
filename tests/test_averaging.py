import pytest
import torch

from supernet.optim.averaging import ExponentialAverage, NoAverage, NonMonotonicAverage


def test_it_starts_when_training_stops_improving_and_is_the_mean_of_every_step_since():
    w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    average, sgd, iterates, started = NonMonotonicAverage(epochs=2), torch.optim.SGD([w], lr=0.1), [], None
    for epoch, loss in enumerate([5.0, 4.0, 3.0, 4.5, 4.2, 4.1, 4.0]):
        for step in range(3):
            w.grad = torch.tensor([epoch + step, 1.0], dtype=torch.float64) * w.detach()
            sgd.step()
            average.after_step([w])
            iterates += [w.detach().clone()] if started is not None else []
        average.after_epoch(loss)
        if average.started and started is None:
            started = epoch
    assert started == 4  # 4.2 is above 4.0, the best of the epochs before the last two
    assert len(iterates) == 6
    last = w.detach().clone()
    with average.evaluated([w]):
        torch.testing.assert_close(w.detach(), torch.stack(iterates).mean(0))
    assert torch.equal(w, last)
    again = NonMonotonicAverage(epochs=2)
    again.load_state_dict(average.state_dict())
    average.after_step([w]), again.after_step([w])
    assert torch.equal(average.mean[0], again.mean[0]) and again.losses == average.losses


def test_what_was_loaded_follows_the_weights_to_their_device():
    average, w = NonMonotonicAverage(), [torch.ones(3, device="meta")]
    average.load_state_dict({"losses": [1.0], "mean": [torch.ones(3)], "steps": 4, "started": True})
    average.after_step(w)
    assert average.steps == 5 and average.mean[0].device == w[0].device


def test_it_needs_a_validation_loss():
    with pytest.raises(ValueError, match="val_portion"):
        NonMonotonicAverage().after_epoch(None)
    with pytest.raises(ValueError, match="at least 1"):
        NonMonotonicAverage(epochs=0)
    NoAverage().after_epoch(None)


def test_an_exponential_average_forgets_the_first_weights_soon_and_then_keeps_its_decay():
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    average, mean = ExponentialAverage(decay=0.5), None
    for step in range(12):
        with torch.no_grad():
            w += torch.tensor([step, 1.0], dtype=torch.float64)
        average.after_step([w])
        d = min(0.5, (1 + step) / (10 + step))
        mean = w.detach().clone() if mean is None else d * mean + (1 - d) * w.detach()
    last = w.detach().clone()
    with average.evaluated([w]):
        torch.testing.assert_close(w.detach(), mean, rtol=0, atol=1e-12)
    assert torch.equal(w, last)
    again = ExponentialAverage(decay=0.5)
    again.load_state_dict(average.state_dict())
    average.after_step([w]), again.after_step([w])
    assert torch.equal(average.mean[0], again.mean[0]) and again.steps == 13
    with pytest.raises(ValueError, match="decay must be"):
        ExponentialAverage(decay=1.0)


def test_before_the_first_step_the_weights_themselves_are_evaluated():
    w = [torch.ones(3)]
    with ExponentialAverage().evaluated(w):
        assert torch.equal(w[0], torch.ones(3))
