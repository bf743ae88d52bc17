"""Time and memory of a search step beside the published loop: `python -m benchmarks.search_step`, from the repository root.

Three steps, float32, noise for images: `w` (weight step), `alpha` (first order), `second` (second order by a finite difference). Ours is
the bundled network in channels_last, as `train_search.py` runs it. The reference is the edge-by-edge network of `tests/reference.py` in
NCHW, under the loop of quark0/darts without its data loading and accuracies. Both compute the same mathematics from the same weights;
their losses are compared before anything is timed. `--relaxation gdas` runs one op an edge: there the other side is our softmax step.

Both run in one process, alternating, the first of a round changing from round to round. Times are medians over the rounds, a
ratio is the median of the rounds' ratios (reference / ours). Peak memory is measured in a step of its own: on the CPU the
bytes of live tensors of that side; on a GPU what is allocated, with the other side's parameters at rest. Kernels are the calls that
PyTorch dispatches and that compute (`compare`).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

try:
    from benchmarks.compare import begun, check_losses, gains, parser_for, prepared, run_steps, steps_notes, steps_table, where, write
    from benchmarks.sides import METHODS, SPACES, STEPS, Sizes, make_sides
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run from the repository root, as python -m benchmarks.search_step") from None
from supernet.networks.measure import parameters

NAMES = {"w": "weight step", "alpha": "alpha step", "second": "second order"}


def _steps(text: str) -> tuple[str, ...]:
    wanted = text.split(",")
    if not set(wanted) <= set(STEPS):
        raise argparse.ArgumentTypeError(f"must be some of {','.join(STEPS)}, got {text!r}")
    return tuple(step for step in STEPS if step in wanted)


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__, rounds=5)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--space", choices=SPACES, default="darts")
    parser.add_argument("--relaxation", choices=METHODS, default="softmax")
    parser.add_argument("--only", type=_steps, default=STEPS, help="some of w,alpha,second")
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    sizes = Sizes(options.cells, options.channels, options.batch, options.image_size)
    sides = make_sides(sizes, device, space=options.space, method=options.relaxation)
    same = METHODS[options.relaxation].same
    result = begun("search_step", argv, device) | {
        "space": options.space, "relaxation": options.relaxation, "backend": options.backend,
        "reference": "edge by edge" if same else "our softmax step",
        "sizes": asdict(sizes), "parameters": parameters(sides["ours"].net), "rounds": options.rounds,
        "losses": check_losses(sides) if same else None}
    names = None if same else (options.relaxation, "softmax")
    write(options.json, result | {"steps": run_steps(sides, options.only, options.rounds, device, names=names)})


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and what came out, for docs/measured.md."""
    sizes = result["sizes"]
    of = "" if result["relaxation"] == "softmax" else f", {result['relaxation']}"
    what = (f"search step, {result['space']}{of}, {result['backend']} backend, against {result['reference']} "
            f"({sizes['cells']} cells, C={sizes['channels']}, "
            f"batch {sizes['batch']}, {where(result)})")
    return [(what, gains(result, NAMES))]


table, notes = steps_table, steps_notes

if __name__ == "__main__":
    main()
