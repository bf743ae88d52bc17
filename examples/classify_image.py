"""Classifies image files with the network of a run. From any folder: `python classify_image.py RUN IMAGE...`

RUN is the folder of a final training (or its weights.pt), or that of a search, whose supernet then answers. Nothing in it is run as code.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

import supernet
from supernet.errors import Mendable


def main() -> None:
    parser = argparse.ArgumentParser(description="Classifies image files with the network of a run.")
    parser.add_argument("run", type=Path, help="a run's folder, or a weights.pt")
    parser.add_argument("images", type=Path, nargs="+", help="files; each is resized and cut as in training")
    parser.add_argument("--top", type=int, default=3, help="how many classes are shown (3)")
    options = parser.parse_args()
    try:
        using = supernet.use(threads=1, backend="plain")  # a few images are not worth a compiler's minute
        run = supernet.load(options.run, device=str(using.device))
        batch = run.preprocess([Image.open(path) for path in options.images])
    except (Mendable, OSError) as error:
        parser.error(str(error))
    with torch.no_grad():
        chances = run.network(batch, run.weights).softmax(1)
    for path, row in zip(options.images, chances):
        best = row.topk(min(options.top, len(row)))
        print(path, *(f"{run.class_names[n]} {100 * p:.1f} %" for p, n in zip(best.values, best.indices)), sep="  ")


if __name__ == "__main__":
    main()
