"""Exported networks beside the networks that they were made of: `python -m benchmarks.export --root data`, from the repository root.

DARTS_V2 (20 cells, C=36), a cell of NAS-Bench-201 (17, C=16), a chain of NAS-Bench-Macro (C=32) and one of `layerwise`, and a recurrent
cell. Their weights are random, and so are the factors of their batch norms, whose running statistics are those of training images. Each is
exported by the command, which holds its files against the network on real images of the test part; then the plain file runs in a process
of its own (python -I) that cannot import this package, and its logits are held against the network's too.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.compare import begun, write
from ops.op import BatchNorm
from supernet import genotype as genotypes
from supernet.commands import export
from supernet.data.augment import Augment
from supernet.data.base import Data, Part
from supernet.data.cifar10 import CIFAR10
from supernet.data.images import ImageData
from supernet.data.text import Text
from supernet.exports.comparison import apart
from supernet.exports.readers import Reader, reader_of
from supernet.networks.build import final_normalisation, initial_weights
from supernet.runs.loading import load
from supernet.runs.weights import save_weights
from supernet.spaces.named import named_space, space_again

NORM = final_normalisation("never", "running")
TEXT = Path(__file__).resolve().parents[1] / "README.md"
IMAGES_OF_STATISTICS = 64
ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("supernet", "ops"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import torch
from network import Network
torch.set_num_threads(1)
net = Network().eval()
net.load_state_dict(torch.load(sys.argv[1] + "/weights.pt", weights_only=True))
with torch.no_grad():
    found = net(*torch.load(sys.argv[2], weights_only=True))
torch.save(found if type(found) is tuple else (found,), sys.argv[3])
"""


def settled(net: nn.Module, images: Tensor) -> nn.Module:
    """The network with random factors in its batch norms, and the statistics of these images."""
    g = torch.Generator().manual_seed(0)
    norms = [m for m in net.modules() if type(m) is BatchNorm]
    for norm in norms:
        norm.weight.data.copy_(0.5 + torch.rand(norm.channels, generator=g))
        norm.bias.data.copy_(torch.rand(norm.channels, generator=g) - 0.5)
        norm.momentum = 1.0  # the last batch alone
    with torch.no_grad():
        net.train()(images, generator=g)
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


def networks(data: ImageData, train: Part, text: Text) -> Iterator[tuple[str, Data, nn.Module, Any]]:
    """Name, data, network and genotype of each."""
    pixels = train.read(torch.arange(IMAGES_OF_STATISTICS))
    images = data.augment.for_evaluation(data.source.mean, data.source.std, device=torch.device("cpu"))(pixels)
    published = genotypes.find("darts_v2")
    spaces = {name: named_space(name) for name in ("nasbench201", "nasbench_macro", "layerwise", "darts_rnn")}
    drawn = {name: space.sample(random.Random(1)) for name, space in spaces.items()}
    sizes = {"darts_v2": {"layers": 20, "channels": 36, "auxiliary": True}, "nasbench201": {"layers": 17, "channels": 16},
             "nasbench_macro": {"layers": 8, "channels": 32}, "layerwise": {"layers": 6, "channels": 32}}
    spaces["darts_v2"], drawn["darts_v2"] = space_again(published.space, dict(published.arguments)), published
    for name, own in sizes.items():
        with initial_weights(0):
            net = spaces[name].network(spaces[name].candidates(drawn[name]), norm=NORM, **data.sizes, **own)
        yield name, data, settled(net, images), drawn[name]
    space, genotype = spaces["darts_rnn"], drawn["darts_rnn"]
    with initial_weights(0):
        net = space.network(space.candidates(genotype), norm=NORM, layers=1, channels=300, batch_norm=False, **text.sizes)
    with torch.no_grad():
        for parameter in net.parameters():  # as they start nothing reaches the logits
            parameter.mul_(4)
    yield "darts_rnn", text, net.eval(), genotype


def alone(folder: Path, net: nn.Module, reader: Reader, inputs: tuple[Tensor, ...], where: Path) -> dict[str, Any]:
    """The plain file without this package, held against the network."""
    torch.save(inputs, where / "inputs.pt")
    subprocess.run([sys.executable, "-I", "-c", ALONE, folder, where / "inputs.pt", where / "found.pt"], check=True, cwd="/")
    with torch.no_grad():
        seen = apart(reader.ours(net, inputs), torch.load(where / "found.pt", weights_only=True))
    return {"difference": seen.of, "same_answer": [seen.agree, seen.count]}


def measured(name: str, weights: Path, formats: str, pictures: Path, where: Path) -> dict[str, Any]:
    """What the command found, and the file alone found. Raises RuntimeError: it was refused."""
    loaded = load(weights)
    reader = reader_of(loaded.network.plain())
    real = ["--images", str(pictures)] if reader.reads_pictures else []
    print(f"\n{name}", flush=True)
    if export.main([str(weights), "-o", str(where / name), "--formats", formats, "--steps", "8", *real]):
        raise RuntimeError(f"{name} was not exported")
    record = json.loads((where / name / "export.json").read_text())
    if real:
        files = sorted(pictures.iterdir())[:100]
        inputs: tuple[Tensor, ...] = (loaded.preprocess([Image.open(path) for path in files]),)
    else:
        tokens = loaded.preprocess(TEXT.read_text()[:2000])
        inputs = tokens, torch.zeros(1, loaded.network.built.sizes["channels"])
    record["alone"] = alone(where / name, loaded.network, reader, inputs, where)
    print(f"alone: {record['alone']['difference']:.1e} of the largest, {record['alone']['same_answer']}", flush=True)
    kept = ("space", "compared_on", "batch", "threads", "torch", "differences", "same_answer", "milliseconds", "seconds_to_write", "alone")
    sizes = {path.name: path.stat().st_size for path in (where / name).iterdir() if path.is_file()}
    return {key: record[key] for key in kept} | {"bytes": sizes}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="where CIFAR-10 is")
    parser.add_argument("--images", type=int, default=1000, help="of the test part, on which files are compared")
    parser.add_argument("--formats", default="pt2,onnx")
    parser.add_argument("--only", nargs="*", help="names of networks; default: all")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args(argv)
    result = begun("export", argv, torch.device("cpu")) | {"networks": {}}
    del result["benchmark"]  # by which `benchmarks.report` knows what it makes the README's figures of speed of
    data = ImageData(CIFAR10(given.root), Augment(pad=4))
    with tempfile.TemporaryDirectory() as made:
        where = Path(made)
        (where / "pictures").mkdir()
        for n, pixels in enumerate(data.source.test().read(torch.arange(given.images))):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(where / "pictures" / f"{n:05}.png")
        text = Text(name="text", path=str(TEXT), level="character", bptt=35)
        for name, of, net, genotype in networks(data, data.source.train(), text):
            if given.only is None or name in given.only:
                save_weights(weights := where / f"{name}.pt", net, of, genotype, "none: weights are random")
                result["networks"][name] = measured(name, weights, given.formats, where / "pictures", where)
                write(given.json, result)


if __name__ == "__main__":
    main()
