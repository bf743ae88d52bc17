"""A task whose best architecture is known: stripes that only one op, on one edge, can tell apart.

Images hold vertical or horizontal stripes with a random phase. The network is one cell, or a few in a row, between a 1x1 stem and a
classifier of the mean of |x|: skip connections and pooling give both classes the same means, so nothing but the 3x3 convolution, a
candidate of the edge 0 -> 1 alone, can tell them apart; and it must not be dropped on the way, so the edge 1 -> 2 must not be `none`.
"""

import numpy as np
from torch import nn

from supernet.networks.cell import Cell
from supernet.space import CellSpec, Space

EDGES = [(0, 1, ["skip_connect", "avg_pool_3x3", "nor_conv_3x3"]), (0, 2, ["none", "skip_connect"]), (1, 2, ["none", "skip_connect"])]

EPOCHS, STEPS = 15, 15 * 8
TASK = ["space=custom", "space._target_=tests.planted.make", "dataset=npz", "dataset.source.layout=NHW", "dataset.augment.pad=0",
        "dataset.augment.flip=false", "split.mode=stratified", f"epochs={EPOCHS}", "batch_size=32", "channels=4", "layers=1", "threads=1",
        "w_optimizer.lr=0.1", "w_optimizer.weight_decay=0", "lr_minimum=0.01"]
ADAM = ["alpha_optimizer.lr=0.05", "alpha_optimizer.weight_decay=0"]
METHODS = {  # by method, what its command line adds to TASK
    "darts_first_order": [],
    "darts_second_order": ["hypergradient=finite_difference"],
    "darts_unrolled": ["hypergradient=unrolled"],
    "gdas": ["relaxation=gumbel"],
    "snas": ["relaxation=concrete", "hypergradient=single_level"],
    "fbnet": ["relaxation=concrete", "relaxation.decay=exponential", "relaxation.temperature=5", "relaxation.temperature_end=0.1"],
    "reinmax": ["relaxation=reinmax"],
    "pc_darts": ["wrapper=[edge_normalised]", "network={partial:2}"],
    "p_darts": ["skip_dropout=p_darts", "select=limited_skips", "select.kinds=[cell]", "stage.keep=[2]", "stage.epochs=[7,8]",
                "stage.layers=[1,2]", "stage.skip_dropout=[0,0.4]"],
    "fair_darts": ["relaxation=sigmoid", "penalty=[zero_one]", "penalty.zero_one.weight=1", "select=threshold"],
    "sdarts_rs": ["wrapper=[random_perturbed]"],
    "sdarts_adv": ["wrapper=[adversarial]"],
    "r_darts_l2": ["hypergradient=finite_difference", "w_optimizer.weight_decay=81e-4"],
    "r_darts_dp": ["hypergradient=finite_difference", "drop_path_prob=0.2"],
    "darts_es": ["hypergradient=finite_difference", "monitor=[eigenvalue]", "monitor.eigenvalue.stop=true"],
    "darts_ada": ["hypergradient=finite_difference", "w_optimizer.weight_decay=3e-4", "monitor=[eigenvalue]",
                  "monitor.eigenvalue.retry=10"],
    "darts_minus": ["wrapper=[auxiliary_skip]", "network={auxiliary_skip:true}"],
    "darts_pt": ["final_select=perturbation", "final_select.finetune_epochs=1"],
    "dr_nas": ["relaxation=dirichlet"],
    "dr_nas_progressive": ["relaxation=dirichlet", "stage.keep=[2]", "stage.epochs=[7,8]", "stage.network={partial:[2,1]}",
                           "stage.inherit=weights", "stage.schedules=search"],
    "oles": ["monitor=[op_freezing]"],
    "beta_darts": ["penalty=[beta_decay]", "penalty.beta_decay.weight=1"],
    "lambda_darts": ["w_penalty=[layer_alignment]", "layers=2"],  # one cell has nothing to align
    "sgas": ["wrapper=[greedy]", "wrapper.greedy.warm_up=6", "wrapper.greedy.every=2"],
    "gaea": ["relaxation=simplex", "hypergradient=single_level", "optimizer@alpha_optimizer=exponentiated_gradient",
             "alpha_optimizer.lr=0.1"],
    "gaea_pc_darts": ["relaxation=simplex", "wrapper=[edge_normalised]", "wrapper.edge_normalised.form=simplex", "network={partial:2}",
                      "optimizer@alpha_optimizer=exponentiated_gradient", "alpha_optimizer.lr=0.1"],
    "idarts": ["hypergradient=neumann", "hypergradient.step=0.1"],
    "conjugate_gradient": ["hypergradient=conjugate_gradient"],
    "proxyless": ["relaxation=binary_gates"],
    "spos": ["relaxation=uniform", "final_select=sampled", "final_select.n=30", "final_select.statistics=recalibrated"],
    "random_ws": ["relaxation=uniform", "final_select=sampled", "final_select.n=30"],
    "enas": ["relaxation=controller", "hypergradient=reinforce", "hypergradient.samples=4", "final_select=sampled", "final_select.n=20",
             "final_select.source=relaxation"],
}


class Stripes(nn.Module):
    def __init__(self, spec, present, *, layers, channels, num_classes, norm, in_channels, image_size, partial=1, auxiliary_skip=False):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.cells = nn.ModuleList(Cell(spec, present, channels, norm, partial=partial, auxiliary_skip=auxiliary_skip)
                                   for _ in range(layers))
        self.kinds, self.drop_path_prob = ["cell"] * layers, 0.0
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x, weights=None, *, generator=None):
        x = self.stem(x)
        scales = [None] * len(self.cells) if weights is None else weights.scales(self.kinds)
        for cell, own in zip(self.cells, scales):
            x = cell([x], own, None if weights is None else weights["cell"].active, self.drop_path_prob, generator)
        return self.classifier(x.abs().mean((2, 3)))


def make():
    spec = CellSpec.listed(num_inputs=1, edges=EDGES, outputs=(2,), keep=None)
    return Space("planted", {}, {"cell": spec}, lambda space, candidates, **sizes: Stripes(spec, candidates["cell"], **sizes),
                 auxiliary_head=False)


def solved(genotype):
    ops = {(e.source, e.destination): e.op for e in genotype["cell"]}
    return ops[0, 1] == "nor_conv_3x3" and ops[1, 2] == "skip_connect"


def write_images(path, n=256):
    """An .npz file of 2n training images and a few test images, 8x8, one channel."""
    rng = np.random.default_rng(0)

    def draw(count):
        labels = np.arange(count) % 2
        wave = (((np.arange(8) // 2)[None] + rng.integers(2, size=count)[:, None]) % 2 * 2 - 1)
        rows = wave[:, :, None].repeat(8, 2)
        images = np.where(labels[:, None, None] == 0, rows, rows.transpose(0, 2, 1)) * 60 + 128
        return (images + rng.normal(0, 20, images.shape)).clip(0, 255).astype(np.uint8), labels

    (train, y), (test, z) = draw(2 * n), draw(16)
    np.savez(path, train_images=train, train_labels=y, test_images=test, test_labels=z)
