"""`python -m supernet.predict RUN PICTURES...`: the classes that a trained network sees in pictures, with their probabilities.

Reads files only; nothing is built from a run's options, trained or changed.
"""

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supernet.commands.arguments import Arguments, exit_code
from supernet.errors import UsageError
from supernet.genotype import short

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.data.preprocess import ImagePreprocessing
    from supernet.runs.loading import Loaded

LEFT_OUT = 1  # exit code: some pictures could not be read


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: predicted(parser().parsed(arguments)), stopped="stopped: what stands above is all that was predicted")


def parser() -> Arguments:
    made = Arguments("predict", "The classes that the network of a run sees in pictures.", [
        "runs/<run of train_final.py> photo.jpg more/*.png",
        "runs/<run>/weights.pt folder --json > found.jsonl"])
    made.add_argument("run", type=Path, help="folder of a final training, or its weights.pt; of a search the supernet predicts")
    made.add_argument("pictures", nargs="+", type=Path, help="picture files, or folders, which are read with all folders in them")
    made.add_argument("--top", default="3", metavar="N", help="how many classes are told of each picture, or `all` (default 3)")
    made.add_argument("--json", action="store_true", help="an object a line, instead of a table: file, class, label, probability, and "
                      "probabilities by class; of a picture that cannot be read: file, error")
    made.add_argument("--batch-size", type=int, default=64, metavar="N", help="pictures that are computed at once (default 64)")
    made.add_argument("--trust", action="append", default=[], metavar="TARGET", help="your own function that the run's options name, which "
                      "will run: my_network.make")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    return made


@dataclass(frozen=True)
class Seen:
    """What is said of one picture: the probability of each class in label order, and whether it had another size than the network reads;
    or the error, one line, why there is nothing."""

    path: Path
    probabilities: "tuple[float, ...]" = ()
    resized: bool = False
    error: str | None = None


def predicted(given: argparse.Namespace) -> int:
    """Prints what the network says of every picture, batch by batch. Raises Mendable errors: nothing can be predicted."""
    top = given.top if given.top == "all" else _whole(given.top, "--top")
    if given.batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {given.batch_size}")
    paths, others = found(given.pictures)

    from supernet.app.own_space import own_space
    from supernet.data.preprocess import ImagePreprocessing
    from supernet.runs.device import resolve_device
    from supernet.runs.loading import load

    try:
        resolve_device(given.device)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    loaded = load(given.run, space=own_space(given.run, given.trust), device=given.device)
    if not isinstance(loaded.preprocess, ImagePreprocessing):
        what = "does not say how pictures become what it reads" if loaded.preprocess is None else "reads text, and no pictures"
        raise UsageError(f"{given.run}: expected a network of images; this one {what}")
    channels = len(loaded.preprocess.mean)
    if channels not in (1, 3):
        raise UsageError(f"{given.run}: expected a network that reads grey or RGB pictures; this one reads {channels} channels")
    for note in loaded.notes:
        print(f"note: {note}", file=sys.stderr)
    if loaded.weights is not None:
        print("note: this run is a search: what predicts is its supernet, with the mean edge weights of its last checkpoint",
              file=sys.stderr)
    if others:
        told = ", ".join(f"{count} {kind}" for kind, count in others.most_common(3))
        print(f"note: not read, for their names are not those of pictures: {others.total()} of the files in the folders ({told})",
              file=sys.stderr)

    errors = resized = 0
    lines = Lines(paths, class_names(loaded), None if top == "all" else top, given.json)
    for seen in predictions(loaded, loaded.preprocess, paths, given.batch_size):
        resized += seen.resized
        if seen.error is not None:
            errors += 1
            print(f"error: {seen.error}", file=sys.stderr)
        lines.say(seen)
    if resized:
        height, width = loaded.preprocess.image_size
        print(f"note: the network reads {height}x{width} pixels; pictures of another size: {resized} of {len(paths)}, resized until they "
              "cover that, and cut to the centre", file=sys.stderr)
    if errors:
        print(f"note: pictures that could not be read: {errors} of {len(paths)}; the others are predicted", file=sys.stderr)
    return LEFT_OUT if errors else 0


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(f"{what} must be a whole number of at least 1, or all, got {short(text)}")
    return int(text)


def found(given: Sequence[Path]) -> tuple[list[Path], Counter[str]]:
    """The pictures: files as they were named, and of folders all that a data set of files would read, by name; and what else these hold, by
    suffix. Raises UsageError: a path leads nowhere, or there is no picture."""
    from supernet.data.folder import files_in
    from supernet.data.image_files import SUFFIXES

    paths: dict[Path, None] = {}
    others: Counter[str] = Counter()
    for path in given:
        if path.is_dir():
            inside = sorted(Path(file.path) for file in files_in(path))
            pictures = [file for file in inside if file.suffix.lower() in SUFFIXES]
            others.update(file.suffix.lower() or file.name for file in inside if file.suffix.lower() not in SUFFIXES)
            if not pictures:
                raise UsageError(f"{shown(path)}: expected pictures ({', '.join(SUFFIXES)}) in this folder, there are none among "
                                 f"{len(inside)} files")
            paths.update(dict.fromkeys(pictures))
        elif path.exists():
            paths[path] = None
        else:
            raise UsageError(f"{shown(path)}: expected a picture or a folder of pictures, there is nothing")
    return list(paths), others


def class_names(loaded: "Loaded") -> Sequence[str]:
    """In label order; their numbers where the data set has no names, or not a different one for each."""
    classes = loaded.network.built.sizes["num_classes"]
    return loaded.class_names if len(set(loaded.class_names)) == classes else [str(n) for n in range(classes)]


def predictions(loaded: "Loaded", preprocess: "ImagePreprocessing", paths: Sequence[Path], batch_size: int) -> Iterator[Seen]:
    """What the network says of every picture, in their order."""
    for begin in range(0, len(paths), batch_size):
        batch = [(path, *_read(path, preprocess)) for path in paths[begin : begin + batch_size]]
        p = iter(_probabilities(loaded, preprocess, [pixels for _, pixels, _, _ in batch if pixels is not None]))
        for path, pixels, resized, error in batch:
            yield Seen(path, error=error) if pixels is None else Seen(path, tuple(next(p)), resized)


def _probabilities(loaded: "Loaded", preprocess: "ImagePreprocessing", pixels: "list[Tensor]") -> list[list[float]]:
    import torch

    from supernet.tasks.base import single

    if not pixels:
        return []
    x = preprocess(torch.stack(pixels))
    with torch.inference_mode():
        return single(loaded.network(x, loaded.weights, generator=torch.Generator(x.device))).softmax(-1).tolist()


def _read(path: Path, preprocess: "ImagePreprocessing") -> "tuple[Tensor | None, bool, str | None]":
    """A picture as the network's pixels, and whether it had another size; or None, and why, in one line."""
    from PIL import Image

    try:
        if not path.is_file():
            return None, False, f"{shown(path)} must be a regular file"  # a pipe may never end
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL: a picture of 100 megapixels may be one; what is beyond its bound it refuses
            with Image.open(path) as file:
                return preprocess.pixels(file), (file.height, file.width) != preprocess.image_size, None
    except Exception as error:  # of a damaged file PIL raises almost anything
        said = shown(" ".join((getattr(error, "strerror", None) or str(error)).split())[:200])
        return None, False, f"{shown(path)} must be an image that can be decoded: {said}"


def shown(text: object) -> str:
    """A path, or a name that a file holds, as one line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


class Lines:
    """The lines of what was seen, on stdout: a table whose widths are known before the first picture is read, or an object a line.
    top: how many classes are told; None for all."""

    def __init__(self, paths: Sequence[Path], names: Sequence[str], top: int | None, as_json: bool):
        self.names, self.top, self.as_json = names if as_json else [*map(shown, names)], top or len(names), as_json
        self.widths = max(len(shown(path)) for path in [*paths, "file"]), max(map(len, [*self.names, "class"]))
        self.begun = False

    def say(self, seen: Seen) -> None:
        order = sorted(range(len(seen.probabilities)), key=lambda n: -seen.probabilities[n])[: self.top]
        if self.as_json:
            print(json.dumps(self._object(seen, order)), flush=True)
        elif seen.error is None:
            if not self.begun:
                print(f"{'file':<{self.widths[0]}}  {'class':<{self.widths[1]}}  probability" + ("  then" if len(order) > 1 else ""))
                self.begun = True
            then = ", ".join(f"{self.names[n]} {100 * seen.probabilities[n]:.2f} %" for n in order[1:])
            share = f"{100 * seen.probabilities[order[0]]:.2f} %"
            name = self.names[order[0]]
            print(f"{shown(seen.path):<{self.widths[0]}}  {name:<{self.widths[1]}}  {share:>11}  {then}".rstrip(), flush=True)

    def _object(self, seen: Seen, order: Sequence[int]) -> dict[str, Any]:
        if seen.error is not None:
            return {"file": str(seen.path), "error": seen.error}
        return {"file": str(seen.path), "class": self.names[order[0]], "label": order[0], "probability": seen.probabilities[order[0]],
                "probabilities": {self.names[n]: seen.probabilities[n] for n in order}}


def command() -> None:
    """The console command."""
    sys.exit(main())
