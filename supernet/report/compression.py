"""What was made of one network to make it smaller: a table, its fronts, a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from supernet.files import write_whole
from supernet.report import figure as figures
from supernet.report import page
from supernet.report.curves import SERIES_COLOURS
from supernet.report.formats import comma_separated, markdown
from supernet.report.names import plain
from supernet.report.progress import staircase
from supernet.report.referee import interval_text
from supernet.report.statistics import Interval, Paired
from supernet.runs.journal import to_json
from supernet.searchers.fronts import front

FORMAT = "supernet.compression/1"
NAMES = ("compression.json", "compression.csv", "compression.md", "compression.png", "compression.html")


@dataclass(frozen=True)
class Row:
    """A network. told: what was done to it; of: the name of the float network that it computes in 8 bits, None for one in floats.
    accuracy, top5, val in percent (val: of the images that were held out, None where none were); interval and change, from the first row on
    the same images, as shares. disk, packed: bytes of its file, and of that through gzip. torch_ms, onnx_ms: a call's median by batch size,
    none where it does not run there. live: bytes of PyTorch's tensors, grown: bytes by which a process with ONNX Runtime grows, both at the
    largest batch. failed: why there is none of all that."""

    name: str
    told: str
    of: str | None = None
    accuracy: float | None = None
    interval: Interval | None = None
    change: Paired | None = None
    top5: float | None = None
    val: float | None = None
    parameters: int | None = None
    nonzero: int | None = None
    multiply_adds: int | None = None
    disk: int | None = None
    packed: int | None = None
    torch_ms: Mapping[int, float] | None = None
    onnx_ms: Mapping[int, float] | None = None
    live: int | None = None
    grown: int | None = None
    seconds: float | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Compression:
    """The first row is the network as it was trained. items: of the test. batches: that time is taken at. measured: on what machine, with
    how many threads, a line. about: what it was made of, plain values."""

    title: str
    rows: Sequence[Row]
    items: int
    batches: Sequence[int]
    measured: str
    about: Mapping[str, Any]

    @property
    def made(self) -> list[Row]:
        return [row for row in self.rows if row.failed is None]


# ---- fronts


def axes_of(table: Compression) -> dict[str, Callable[[Row], float | None]]:
    """What accuracy is set against, by its label. Time is that of one engine for all: ONNX Runtime's where every network has it."""
    first = table.batches[0]
    everywhere = all(row.onnx_ms for row in table.made)
    engine = "ONNX Runtime" if everywhere else "PyTorch"

    def ms(row: Row) -> float | None:
        times = row.onnx_ms if everywhere else row.torch_ms
        return None if times is None else times[first]

    return {"size on disk (kB)": lambda row: None if row.disk is None else row.disk / 1000,
            "multiply-adds (M)": lambda row: None if row.multiply_adds is None else row.multiply_adds / 1e6,
            f"{engine}, batch {first} (ms)": ms}


def members(table: Compression) -> dict[str, list[str]]:
    """By axis, the names of those that no other beats in accuracy and in it."""
    found = {}
    for label, of in axes_of(table).items():
        rows = [row for row in table.made if of(row) is not None]
        kept = front(np.array([(row.accuracy, -of(row)) for row in rows])) if rows else []
        found[label] = [row.name for row, is_of in zip(rows, kept) if is_of]
    return found


def chart(table: Compression) -> Figure:
    """A panel an axis: accuracy, with its interval, against it; the line leads over those that no other beats. Make and save it within
    `figure.house_style()`."""
    axes_by, best = axes_of(table), members(table)
    colours = {row.name: SERIES_COLOURS[n % len(SERIES_COLOURS)] for n, row in enumerate(table.made)}
    markers = {row.name: "osD^vPX*<>"[n // len(SERIES_COLOURS) % 10] for n, row in enumerate(table.made)}
    figure = Figure(figsize=(3.1 * len(axes_by), 3.2 + 0.16 * -(-len(colours) // 3)), layout="constrained", facecolor="white")
    for n, (label, of) in enumerate(axes_by.items()):
        axes = figure.add_subplot(1, len(axes_by), n + 1)
        rows = [row for row in table.made if of(row) is not None]
        for row in rows:
            low, high = (100 * end for end in row.interval)
            strong = row.name in best[label]
            axes.errorbar(of(row), row.accuracy, [[row.accuracy - low], [high - row.accuracy]], fmt=markers[row.name], markersize=5,
                          color=colours[row.name], markerfacecolor=colours[row.name] if strong else "white", elinewidth=0.7,
                          ecolor=f"{colours[row.name]}66", zorder=3)
        corners = staircase([(-of(row), row.accuracy) for row in rows if row.name in best[label]])
        if corners:
            axes.plot([-x for x, _ in corners], [y for _, y in corners], color="#999999", linewidth=0.9, zorder=2)
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy (%)" if n == 0 else "")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(True, color="#e3e3e3", linewidth=0.6)
        axes.set_axisbelow(True)
    handles = [figure.axes[0].plot([], [], markers[name], color=colour, markersize=5, label=plain(name))[0]
               for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


# ---- words


def notes(table: Compression) -> list[str]:
    """What the numbers say, in sentences: where 8 bits are slower than floats, what zeros do not save, what could not be made."""
    by_name, said = {row.name: row for row in table.rows}, []
    for row in table.made:
        base = by_name.get(row.of or "")
        if base is None or not row.onnx_ms or not base.onnx_ms:
            continue
        parts = []
        for batch in table.batches:
            ours, theirs = row.onnx_ms[batch], base.onnx_ms[batch]
            parts.append(f"{'slower' if ours > theirs else 'faster'} at batch {batch} ({ours:.3g} against {theirs:.3g} ms)")
        said.append(f"{row.name} is {' and '.join(parts)} than {base.name} in ONNX Runtime on this machine.")
    zeros = [row.name for row in table.made if row.nonzero and row.nonzero < 0.95 * row.parameters]
    if zeros:
        said.append(f"Weights that are zero ({', '.join(zeros)}) count like others: they make the packed file smaller, but neither "
                    "the file as it is, nor multiply-adds, nor time.")
    return said + [f"{row.name} is not practical: {row.failed}." for row in table.rows if row.failed is not None]


WORTH = ("network", "accuracy, %", "95 % interval", "change, points", "95 % interval of it", "top-5, %", "held out, %", "what was done")


def worth(table: Compression) -> list[list[str]]:
    """What each is worth."""
    found = []
    for n, row in enumerate(table.rows):
        if row.failed is not None:
            found.append([row.name, *[""] * 6, f"{row.told}: not practical"])
            continue
        change = ["", ""] if n == 0 or row.change is None else [
            f"{100 * row.change.difference:+.2f}", interval_text(Interval(100 * row.change.low, 100 * row.change.high))]
        found.append([row.name, f"{row.accuracy:.2f}", interval_text(Interval(*(100 * end for end in row.interval))), *change,
                      number(row.top5), number(row.val), row.told])
    return found


def takes_head(table: Compression) -> list[str]:
    return ["network", "parameters", "not zero", "multiply-adds, M", "disk, kB", "gzip, kB",
            *(f"{engine} ms, batch {batch}" for engine in ("PyTorch", "ONNX") for batch in table.batches),
            f"PyTorch MiB, batch {table.batches[-1]}", f"ONNX MiB, batch {table.batches[-1]}"]


def takes(table: Compression) -> list[list[str]]:
    """What each takes; a dash where it does not run so, or was not measured."""
    found = []
    for row in table.made:
        times = [number(None if ms is None else ms[batch], 3) for ms in (row.torch_ms, row.onnx_ms) for batch in table.batches]
        found.append([row.name, f"{row.parameters:,}", f"{row.nonzero:,}", f"{row.multiply_adds / 1e6:.3f}", f"{row.disk / 1000:.1f}",
                      f"{row.packed / 1000:.1f}", *times, *(number(None if n is None else n / 2**20, 1) for n in (row.live, row.grown))])
    return found


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def fronts_text(table: Compression) -> list[str]:
    return [f"no other beats in accuracy and {label.partition(' (')[0]}: {', '.join(names)}" for label, names in members(table).items()]


def text(table: Compression) -> str:
    """For a terminal and compression.md."""
    lines = [markdown(WORTH, worth(table)), "", markdown(takes_head(table), takes(table)), "",
             f"{table.items:,} test images, read once a network. {table.measured}", *notes(table), *fronts_text(table)]
    return "\n".join(lines)


# ---- files


def plain_rows(table: Compression) -> list[dict[str, Any]]:
    """With intervals and times under names of their own."""
    found, on = [], members(table)
    for row in table.rows:
        values = {key: value for key, value in asdict(row).items() if key not in ("interval", "change", "torch_ms", "onnx_ms")}
        low, high = row.interval or (None, None)
        change = row.change
        values |= {"accuracy_low": None if low is None else 100 * low, "accuracy_high": None if high is None else 100 * high,
                   **{f"change{name}": None if change is None else 100 * value for name, value in (
                       ("", change and change.difference), ("_low", change and change.low), ("_high", change and change.high))},
                   **{f"{engine}_ms_batch_{batch}": None if times is None else times[batch] for engine, times in (
                       ("torch", row.torch_ms), ("onnx", row.onnx_ms)) for batch in table.batches},
                   "front": [label for label, names in on.items() if row.name in names]}
        found.append(values)
    return found


def write(output: Path, table: Compression) -> list[Path]:
    """`NAMES`, in the folder. Raises OSError."""
    rows = plain_rows(table)
    with figures.house_style():
        drawn = chart(table)
        figures.save(drawn, output / "compression.png", 150)
        svg = figures.with_ids(figures.svg(drawn), "c")
    names = list(rows[0])
    csv_rows = [[" ".join(row["front"]) if name == "front" else row[name] for name in names] for row in rows]
    texts = {"compression.json": to_json({"format": FORMAT, **table.about, "test_items": table.items, "measured": table.measured,
                                          "notes": notes(table), "results": rows}, indent=1) + "\n",
             "compression.csv": comma_separated(names, csv_rows),
             "compression.md": f"# {table.title}\n\n{text(table)}\n", "compression.html": whole_page(table, svg)}
    for name, content in texts.items():
        write_whole(output / name, content.encode())
    return [output / name for name in NAMES]


def whole_page(table: Compression, svg: str) -> str:
    line = f"{table.items:,} test images, read once a network, and nothing was chosen by them. {table.measured}"
    drawn = page.figure(svg, "test accuracy against size, multiply-adds and time", wide=True)
    how = ("Filled: no other network is at least as accurate and smaller, or faster. The bars are 95 % intervals of the accuracy itself; "
           "how sure a difference is stands in the table, for all are judged on the same images.")
    said = "".join(page.paragraph(note) for note in notes(table))
    return page.page(table.title, [
        page.header(table.title, line), page.section("Accuracy against what it takes", drawn + page.paragraph(how, soft=True)),
        page.section("What it is worth", page.table(worth(table), head=WORTH)),
        page.section("What it takes", page.table(takes(table), head=takes_head(table)) + said),
        page.section("Made from", page.table([(key, str(value)) for key, value in table.about.items()]))])
