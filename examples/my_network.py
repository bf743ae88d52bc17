"""A network of one's own, of which a supernet is made: copy this file anywhere, and from its folder run

    python <clone>/train_search.py space=from_model space.model=my_network.make
    python <clone>/train_final.py space=from_model space.model=my_network.make

It is an ordinary module, which knows nothing of the search: a residual network for small images (He et al. 2016, Sec. 4.2).
"""

import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Identity()
        if stride > 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallResNet(nn.Module):
    def __init__(self, channels, blocks, in_channels, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        stages, last = [], channels
        for stage, width in enumerate((channels, 2 * channels, 4 * channels)):
            for n in range(blocks):
                stages.append(BasicBlock(last, width, 2 if stage > 0 and n == 0 else 1))
                last = width
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x):
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


def make(num_classes=10, in_channels=3, channels=16, blocks=2):
    """Three stages of `channels`, twice and four times as many, of so many blocks each."""
    return SmallResNet(channels, blocks, in_channels, num_classes)
