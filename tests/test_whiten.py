"""The first layer that whitens what it reads."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from supernet.errors import UsageError
from supernet.networks.build import final_normalisation
from supernet.networks.whiten import first_convolution, whiten, whitening_filters
from supernet.spaces import darts


def images(count=40):
    """Smooth in both directions and across channels, so that patches are far from white."""
    noise = torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.avg_pool2d(noise, 3, stride=1, padding=1) + noise.mean(1, keepdim=True)


def test_the_responses_of_all_patches_are_white():
    filters = whitening_filters(images().split(16), (2, 2), epsilon=0.0)
    responses = F.conv2d(images(), filters[::2]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(responses @ responses.T / responses.shape[1], torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-9)
    assert torch.equal(filters[1::2], -filters[::2])
    raw = F.unfold(images(), 2).transpose(1, 2).flatten(0, 1)
    shares = (raw @ filters[::2].flatten(1).T).std(0) / filters[::2].flatten(1).norm(dim=1)
    assert (shares.diff() < 0).all(), "the largest direction first"


@pytest.mark.parametrize("width", [4, 24, 30])
def test_a_convolution_takes_as_many_filters_as_it_has_and_keeps_the_rest(width):
    convolution = nn.Conv2d(3, width, 2, bias=False).double()
    before = convolution.weight.detach().clone()
    whiten(convolution, [images()])
    taken = min(width, 24)
    assert torch.equal(convolution.weight[:taken].detach(), whitening_filters([images()], (2, 2))[:taken])
    assert torch.equal(convolution.weight[taken:].detach(), before[taken:])
    assert convolution.weight.requires_grad


def test_the_first_convolution_is_the_stems_and_a_network_without_one_is_refused():
    space = darts.make(nodes=2)
    net = space.network(space.candidates(), norm=final_normalisation("search", "running"), channels=4, layers=2, num_classes=3)
    assert first_convolution(net) is net.stem.conv
    with pytest.raises(UsageError, match="whiten_first=true needs a network that begins with a convolution, got Linear"):
        first_convolution(nn.Linear(2, 2))
