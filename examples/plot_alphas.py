"""Plots how the weight of every candidate moved in a search. From any folder: `python plot_alphas.py RUN/alphas.npz [PICTURE]`

alphas.npz has, for each kind of cell, `weights.<kind>` (T, E, O): the mean edge weights at T moments, whose epochs are `epoch` (T,);
`alpha.<kind>`, the parameters behind them; `edges.<kind>` (E, 2) and `ops.<kind>` (O,) say what rows and columns stand for.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main() -> None:
    parser = argparse.ArgumentParser(description="Plots how the weight of every candidate moved in a search.")
    parser.add_argument("alphas", type=Path, help="the alphas.npz of a search")
    parser.add_argument("picture", type=Path, nargs="?", default=Path("alphas.png"), help="what is written (alphas.png)")
    options = parser.parse_args()
    try:
        with np.load(options.alphas, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError) as error:
        parser.error(f"{options.alphas}: not the alphas.npz of a search ({error})")

    kinds = [name.removeprefix("weights.") for name in arrays if name.startswith("weights.")]
    if not kinds:
        parser.error(f"{options.alphas}: expected arrays weights.<kind>, got {', '.join(arrays)}")
    most = max(len(arrays[f"edges.{kind}"]) for kind in kinds)
    figure = Figure(figsize=(2.4 * most, 2.4 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), most, sharex=True, sharey=True, squeeze=False)
    for row, kind in zip(axes, kinds):
        for plot in row[len(arrays[f"edges.{kind}"]):]:
            plot.set_axis_off()
        weights = arrays[f"weights.{kind}"]
        weights = weights.mean(1) if weights.ndim == 4 else weights  # where each layer has its own: (T, L, E, O)
        for e, (source, destination) in enumerate(arrays[f"edges.{kind}"]):
            row[e].plot(arrays["epoch"], weights[:, e], label=arrays[f"ops.{kind}"])
            row[e].set_title(f"{kind}, {source} → {destination}", fontsize="small")
        row[0].set_ylabel("mean edge weight")
        row[-1].legend(*row[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5), fontsize="x-small")
    figure.supxlabel("epoch")
    figure.savefig(options.picture)
    print(f"written   {options.picture}")


if __name__ == "__main__":
    main()
