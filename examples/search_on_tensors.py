"""Searches for a cell on tensors of your own, without configs or files. Run it from any folder: `python search_on_tensors.py`

Replace `images` and `labels`. Every line of the search is here, and each part is exchanged where it is made: another relaxation, another
hypergradient, another optimizer.
"""

import torch

import supernet
from supernet.bilevel import Bilevel
from supernet.hypergradients.first_order import first_order
from supernet.networks.build import final_normalisation, initial_weights, search_normalisation
from supernet.relaxations.softmax import Softmax
from supernet.select.argmax import argmax
from supernet.tasks.classification import Classification

EPOCHS, BATCH = 4, 16
supernet.use(threads=1, device="cpu")

# Your data: float images (N, C, H, W), labels from 0. Here stripes in noise, whose class is their direction.
draws = torch.Generator().manual_seed(0)
labels = torch.arange(192) % 4
y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
waves = torch.stack([torch.sin(2 * (a * x + b * y)) for a, b in ((1, 0), (0, 1), (0.7, 0.7), (0.7, -0.7))])
images = waves[labels][:, None] + 1.5 * torch.randn(192, 1, 8, 8, generator=draws)
train, val = (images[:96], labels[:96]), (images[96:], labels[96:])  # the weights learn from the first, the alphas from the second
sizes = {"layers": 3, "channels": 4, "num_classes": 4, "in_channels": 1, "image_size": (8, 8)}

space = supernet.space("darts", nodes=2, ops=["none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"])
with initial_weights(seed=0):
    net = space.network(space.candidates(), norm=search_normalisation("search", "running"), **sizes)
relaxation = Softmax(space, draws)
search = Bilevel(net, relaxation, first_order, Classification(), torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
                 torch.optim.Adam(relaxation.parameters(), lr=0.01), {"net": torch.Generator().manual_seed(1), "alpha": draws})

for epoch in range(EPOCHS):
    search.anneal(epoch / max(1, EPOCHS - 1), epoch)
    for n in torch.randperm(96, generator=draws).split(BATCH):
        m = torch.randperm(96, generator=draws)[:BATCH]
        stats = search.step((train[0][n], train[1][n]), (val[0][m], val[1][m]))  # the alphas once, then the weights once
    print(f"epoch {epoch + 1}  loss of the last batch {stats['loss'] / stats['count']:.3f}")

genotype = argmax(space, relaxation.mean())
final = space.network(space.candidates(genotype), norm=final_normalisation("search", "running"), **sizes)  # to be trained from scratch
print(f"found     {space.text(genotype)}\nnetwork   {sum(p.numel() for p in final.parameters()):,} parameters")
