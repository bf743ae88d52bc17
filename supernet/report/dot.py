"""The cells of a genotype in the language of Graphviz: text, for whoever draws it further. Graphviz itself is not needed."""

from collections.abc import Mapping, Sequence

from supernet.genotype import Genotype
from supernet.report.draw import drawn_outputs
from supernet.report.names import FAMILY_COLOURS, NAMINGS, NODE_FILLS, Naming, op_family, op_label, plain


def dot(genotype: Genotype, outputs: Mapping[str, Sequence[int]], num_inputs: Mapping[str, int]) -> str:
    """One digraph with a cluster for each kind of cell. Nodes are called as in the drawing; outputs and num_inputs as there."""
    lines = ["digraph cells {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fontname="Helvetica"];',
             '  edge [fontname="Helvetica", fontsize=10];']
    for number, (kind, edges) in enumerate(genotype.cells):
        if not edges:
            continue
        naming = NAMINGS.get(kind, Naming())
        inputs = num_inputs.get(kind, min(e.destination for e in edges))
        last = max(e.destination for e in edges)
        ends = drawn_outputs(edges, inputs, outputs.get(kind, range(inputs, last + 1) if kind in NAMINGS else None))
        joined = ends if len(ends) > 1 else []
        output = last + 1 if joined else ends[0] if ends else None
        nodes = sorted({n for e in edges for n in (e.source, e.destination)} | ({output} if joined else set()))
        nodes += [-1 - n for n in range(len(naming.fed))]
        lines += [f"  subgraph cluster_{number} {{", f"    label={quoted(plain(kind) + naming.note)};"]
        for node in nodes:
            role = "output" if node == output else "input" if node < (0 if naming.fed else inputs) else "computed"
            name = naming.output if node == output else naming.name(node, inputs)
            lines.append(f"    {place(number, node)} [label={quoted(spoken(name))}, fillcolor={quoted(NODE_FILLS[role])}];")
        for edge in edges:
            colour, style = FAMILY_COLOURS[op_family(edge.op)], ", style=dotted" if op_family(edge.op) == "none" else ""
            lines.append(f"    {place(number, edge.source)} -> {place(number, edge.destination)} "
                         f"[label={quoted(op_label(edge.op))}, color={quoted(colour)}, fontcolor={quoted(colour)}{style}];")
        lines += [f'    {place(number, node)} -> {place(number, last + 1)} [color="#888888"];' for node in joined]
        lines += [f'    {place(number, -1 - n)} -> {place(number, 0)} [color="#888888"];' for n in range(len(naming.fed))]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def place(number: int, node: int) -> str:
    """A node's identifier: that of the same node in another cell differs."""
    return f"c{number}_{'fed' if node < 0 else 'n'}{abs(node)}"


def spoken(name: str) -> str:
    """Mathtext without its braces: `c_{k-2}` is `c_k-2`."""
    return name.replace("{", "").replace("}", "")


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
