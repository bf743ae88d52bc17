"""A recurrent cell against an LSTM of equal parameters in equal time, on characters.

    python -m benchmarks.recurrent TEXT --genotype FILE --minutes 4

Both language models have tied embeddings, the same batches, Adam, learning rate (falling linearly over the time), clipping and dropout, and
take turns, so that both meet the same load of the machine. Reported: bits per character of the validation text over the seconds that
each has trained.
"""

import argparse
import json
import math
import platform
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from ops.op import Normalisation
from supernet.data.loader import Forever, Loading
from supernet.data.text import Text
from supernet.genotype import Genotype
from supernet.networks.recurrent import LanguageOutput
from supernet.spaces import darts_rnn
from supernet.tasks.language_model import LanguageModel
from supernet.training.evaluate import evaluate

LR, LR_MINIMUM, CLIP, DROPOUT, LOOKS = 3e-3, 3e-4, 1.0, 0.1, 8


class LSTMLanguageModel(nn.Module):
    """Embedding, LSTM, decoder with the embedding's weights; called as `supernet.networks.recurrent.RecurrentLanguageModel`."""

    def __init__(self, vocabulary: int, hidden: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary, hidden).uniform_(-0.04, 0.04))
        self.lstm, self.bias = nn.LSTM(hidden, hidden), nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, weights: None = None, *, state: Tensor | None = None,
                generator: torch.Generator | None = None) -> LanguageOutput:
        start = None if state is None else (state[:1].contiguous(), state[1:].contiguous())
        raw, (h, c) = self.lstm(nn.functional.embedding(x, self.embedding), start)
        dropped = raw
        if self.training:
            dropped = raw * (torch.rand(raw.shape[1:], generator=generator) >= DROPOUT) / (1 - DROPOUT)
        return LanguageOutput(dropped @ self.embedding.T + self.bias, raw, dropped, torch.cat([h, c]).detach())


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def contenders(genotype: Genotype, vocabulary: int, units: int) -> dict[str, nn.Module]:
    """The cell with `units`, and the LSTM whose parameters come nearest to its."""
    space = darts_rnn.make(**genotype.arguments)
    torch.manual_seed(0)
    cell = space.network(space.candidates(genotype), norm=Normalisation(True, False), layers=1, channels=units, vocabulary=vocabulary,
                         batch_norm=False, dropout_output=DROPOUT)
    hidden = min(range(8, 4 * units), key=lambda n: abs(8 * n * n + 8 * n + vocabulary * (n + 1) - size(cell)))
    return {"cell": cell, "lstm": LSTMLanguageModel(vocabulary, hidden)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--genotype", type=Path, required=True, help="a genotype.json of space darts_rnn")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, for each of the two")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recurrent_cpu.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    data = Text(name="text", path=str(options.text))
    data.check()
    task, device = LanguageModel(item="character", bptt=data.bptt), torch.device("cpu")
    nets = contenders(Genotype.load(options.genotype), data.sizes["vocabulary"], options.units)
    budget, used = 60 * options.minutes, dict.fromkeys(nets, 0.0)
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in nets}
    generators = {name: torch.Generator().manual_seed(0) for name in nets}
    optimizers = {name: torch.optim.Adam(net.parameters(), lr=LR) for name, net in nets.items()}
    loaders = {name: data.search(Loading(64, 64, device), split={"max_train": None, "max_val": None}, augment_val=False,
                                 generators={"train": torch.Generator().manual_seed(1), "val": torch.Generator()}) for name in nets}
    batches, states = {name: Forever(loaders[name].train) for name in nets}, dict.fromkeys(nets)
    while min(used.values()) < budget:
        name = min(used, key=used.__getitem__)  # whoever has trained less takes the next step
        net, optimizer = nets[name].train(), optimizers[name]
        batch, started = next(batches[name]), time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = LR + (LR_MINIMUM - LR) * min(1.0, used[name] / budget)
        loss, _, states[name] = task(net, batch, state=states[name], generator=generators[name])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        used[name] += time.perf_counter() - started
        if used[name] >= budget * (len(curves[name]) + 1) / LOOKS:
            metrics = evaluate(net, task, loaders[name].val_eval, lambda: None, generators[name])
            curves[name].append((round(used[name], 1), metrics["loss"] / math.log(2)))
            print(f"{name:5}  {used[name]:6.0f} s  {curves[name][-1][1]:.3f} bits per character", flush=True)
    result = {"text": options.text.name, "minutes_each": options.minutes, "units": options.units, "threads": options.threads,
              "torch": torch.__version__, "machine": platform.machine(), "parameters": {name: size(net) for name, net in nets.items()},
              "genotype": Genotype.load(options.genotype).to_json(), "bits_per_character": curves}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, net in nets.items():
        print(f"{name:5}  {size(net):,} parameters, {curves[name][-1][1]:.3f} bits per character after {options.minutes:g} min")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
