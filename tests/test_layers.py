"""Who imports whom in `supernet/` and `ops/`: one way only. `python -m tests.test_layers` draws it."""

import ast
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

# From low to high; a room (a folder or a module of `supernet/`) imports what stands before it. A new one is entered where it belongs.
# plain values, without PyTorch
VALUES = ("errors", "formats", "ranges", "files", "interfaces", "genotype", "space", "trials", "objectives")
ORDER = (*VALUES, "torch_file", "searchers", "weights",
         "processes",  # several that take one step
         "tables", "networks", "data", "tasks", "costs", "spaces",  # what is searched, on what, at what cost
         "notation",  # cells in the words of others
         "optim", "relaxations", "hypergradients", "penalties", "passes", "attentive",  # a step of the search, and who watches it
         "bilevel", "monitors",
         "training", "runs", "launchers", "evaluators", "select",  # the loops, what they leave behind
         "exports", "compression", "deployment", "report",  # what is made of it
         "app", "sweeps", "commands",  # options to objects, jobs of many runs, what is started
         "rank", "race", "tabulate", "sweep", "compare", "ensemble", "reproduce", "predict", "explain", "export",
         "compress", "deploy", "draw", "diff", "supernet")  # the commands by name; the package itself


class Import(NamedTuple):
    """One statement: where it stands, the module that it names, and whether that is needed for types alone or in a function only."""

    file: str
    line: int
    module: str
    when: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}" + (f" ({self.when})" if self.when else "")


def imports(root: Path, package: str) -> list[Import]:
    """All imports of modules of `root` in the files of one of its packages."""
    found = []
    for path in sorted((root / package).rglob("*.py")):
        found += [Import(path.relative_to(root).as_posix(), line, module, when)
                  for node, when in _statements(ast.parse(path.read_text()), "") for line, module in _named(root, path, node)]
    return found


def _statements(node: ast.AST, when: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, when
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for part in child.body:
                yield from _statements(ast.Module([part], []), "for types")
            for part in child.orelse:
                yield from _statements(ast.Module([part], []), when)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # no statement stands within an expression
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _statements(child, "in a function" if inside and not when else when)


def _named(root: Path, path: Path, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    """The modules of `root` that a statement names: `from package import x` names package.x where that is a module."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        here = path.relative_to(root).parent.parts
        base = ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])]) if node.level else node.module
        names = [f"{base}.{a.name}" if _is_module(root, f"{base}.{a.name}") else base for a in node.names]
    for name in dict.fromkeys(names):
        if (root / name.split(".")[0]).is_dir() or (root / f"{name}.py").is_file():
            yield node.lineno, name


def _is_module(root: Path, name: str) -> bool:
    place = root.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def room(module: str) -> str:
    """The folder or module of `supernet/` that a module belongs to; `supernet` itself, and other packages, are one room each. So is what
    `python -m` runs of a folder: a command."""
    first, *rest = module.split(".")
    if rest and rest[-1] == "__main__":  # `python -m` of a package that holds other things too
        return "commands"
    return rest[0] if first == "supernet" and rest else first


def module_of(file: str) -> str:
    return ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")


def upwards(found: Sequence[Import], order: Sequence[str]) -> list[str]:
    """A line for each import of a room that does not stand lower, and for each room that has no place."""
    place, lines = {name: n for n, name in enumerate(order)}, []
    for one in found:
        by, of = room(module_of(one.file)), room(one.module)
        if "ops" in (by, of):
            if by == "ops" and of != "ops":
                lines.append(f"{one}: ops imports nothing of ours")
        elif one.file == "supernet/__init__.py" and not one.when and of not in VALUES:
            lines.append(f"{one}: every import of the library would import that too")
        elif of in ("tests", "benchmarks", "examples", "train_search", "train_final"):
            lines.append(f"{one}: the library imports nothing of what is built on it")
        elif by != of and (missing := sorted({by, of} - set(place))):
            lines.append(f"{one}: {missing[0]} has no place in ORDER (tests/test_layers.py)")
        elif by != of and place[of] > place[by]:
            lines.append(f"{one}: {of} lies above {by}")
    return lines


def cycle(found: Sequence[Import], by: Callable[[str], str]) -> list[Import]:
    """Imports that lead from a node back to it, in their order; none where there is no cycle. by: the node that a module belongs to."""
    edges: dict[str, dict[str, Import]] = {}
    for one in found:
        a, b = by(module_of(one.file)), by(one.module)
        if a != b:
            edges.setdefault(a, {}).setdefault(b, one)
    done: set[str] = set()

    def search(node: str, path: list[tuple[str, Import]]) -> list[Import]:
        for other, one in edges.get(node, {}).items():
            names = [name for name, _ in path] + [node]
            if other in names:
                return [i for _, i in path[names.index(other):]] + [one]
            if other not in done and (hit := search(other, [*path, (node, one)])):
                return hit
        done.add(node)
        return []

    return next((hit for node in list(edges) if (hit := search(node, []))), [])


def drawn(found: Sequence[Import], order: Sequence[str]) -> str:
    """Each room with those that it imports; in brackets where only for types or in functions."""
    lines = []
    for name in order:
        own = [one for one in found if room(module_of(one.file)) == name]
        firm = {room(one.module) for one in own if not one.when}
        seen = [other if other in firm else f"({other})" for other in ("ops", *order)
                if other != name and any(room(one.module) == other for one in own)]
        lines.append(f"{name:15} <- {' '.join(seen)}")
    return "\n".join(lines)


@functools.cache
def ours() -> list[Import]:
    return [*imports(ROOT, "ops"), *imports(ROOT, "supernet")]


def test_imports_run_one_way():
    found = ours()
    assert len(found) > 300, "the imports were not found"
    wrong = upwards(found, ORDER)
    assert not wrong, "\n" + "\n".join(wrong)


def test_no_rooms_and_no_modules_import_each_other_in_a_circle():
    found = ours()
    for by in (room, str):
        assert not cycle(found, by), "\n" + "\n".join(map(str, cycle(found, by)))


def test_every_room_is_there():
    there = {path.stem for path in (ROOT / "supernet").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    there |= {f"{path.parent.name}.__main__" for path in (ROOT / "supernet").glob("*/__main__.py")}
    assert set(ORDER) - there == {"supernet"}, "ORDER names rooms that are gone"


def test_no_file_of_tests_is_imported_by_another():
    """What several of them build, run or compare is in builders.py, searches.py, runs.py and others beside them."""
    found = [one for package in ("tests", "benchmarks", "supernet", "ops", "examples") for one in imports(ROOT, package)]
    assert not [str(one) for one in found if one.module.startswith("tests.test_")]


def tree(root: Path, **files: str) -> list[Import]:
    for name, text in files.items():
        path = root / "supernet" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "ops").mkdir(exist_ok=True)
    return imports(root, "supernet")


def test_an_import_that_runs_upwards_is_told_by_file_and_line_wherever_it_stands(tmp_path):
    low = ("import os\nfrom typing import TYPE_CHECKING\n\nfrom supernet.high.b import x\nfrom supernet import high\nfrom ..high import b\n"
           "if TYPE_CHECKING:\n    from supernet.high import b\n\n\ndef f():\n    import supernet.high.b as c\n")
    found = tree(tmp_path, low__a=low, high__b="from supernet.low import a\nfrom supernet.low.a import y\n", high__c="from . import b\n")
    said = "supernet/low/a.py:{} imports supernet.high{}: high lies above low"
    assert upwards(found, ("low", "high")) == [said.format(*where) for where in (
        (4, ".b"), (5, ""), (6, ".b"), (8, ".b (for types)"), (12, ".b (in a function)"))]
    assert not [line for line in upwards(found, ("high", "low")) if "low/a.py" in line]
    assert upwards(found, ("low",))[0].endswith("high has no place in ORDER (tests/test_layers.py)")
    assert [str(one) for one in cycle(found, room)] == ["supernet/high/b.py:1 imports supernet.low.a",
                                                           "supernet/low/a.py:4 imports supernet.high.b"]
    assert drawn(found, ("low", "high")).split("\n") == ["low             <- high", "high            <- low"]


def test_modules_of_one_room_in_a_circle_are_told(tmp_path):
    found = tree(tmp_path, a__x="from supernet.a.y import p\n", a__y="def f():\n    from supernet.a import z\n",
                 a__z="import supernet.a.x\n")
    assert not cycle(found, room) and not upwards(found, ("a",))
    assert [str(one) for one in cycle(found, str)] == ["supernet/a/x.py:1 imports supernet.a.y",
                                                  "supernet/a/y.py:2 imports supernet.a.z (in a function)",
                                                  "supernet/a/z.py:1 imports supernet.a.x"]


def test_the_package_itself_imports_in_functions_only(tmp_path):
    tree(tmp_path, a="x = 1\n")
    (tmp_path / "supernet" / "__init__.py").write_text("from supernet.a import x\n\n\ndef load():\n    from supernet.a import x\n")
    assert upwards(imports(tmp_path, "supernet"), ("a", "supernet")) == [
        "supernet/__init__.py:1 imports supernet.a: every import of the library would import that too"]


def test_nothing_of_ours_is_imported_by_ops_and_no_tests_by_the_library(tmp_path):
    (tmp_path / "tests").mkdir()
    found = tree(tmp_path, a="from tests.reference import close\nfrom ops import conv\n")
    (tmp_path / "ops" / "b.py").write_text("import torch\nfrom supernet import a\n")
    assert upwards([*found, *imports(tmp_path, "ops")], ("a",)) == [
        "supernet/a.py:1 imports tests.reference: the library imports nothing of what is built on it",
        "ops/b.py:2 imports supernet.a: ops imports nothing of ours"]


if __name__ == "__main__":
    print(drawn(ours(), ORDER))
