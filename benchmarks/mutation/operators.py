"""What may be changed in a source: every mutant of a module, as data. A mutant is one small fault of the kind that people make.

Nothing is changed in docstrings, texts, annotations, imports, assertions, and what is raised (its message). Where a change would only be
met by an error of types (a text minus a text), it is left out as far as the source tells, for such mutants prove nothing.
"""

import ast
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Place = tuple[tuple[str, int | None], ...]  # from the tree to a node: fields, and where one holds a list the index

COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
            ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
            ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
REDUCED = {"sum": "mean", "mean": "sum", "argmax": "argmin", "argmin": "argmax", "clamp_min": "clamp_max", "clamp_max": "clamp_min",
           "any": "all", "all": "any", "max": "min", "min": "max", "amax": "amin", "amin": "amax", "softmax": "log_softmax",
           "log_softmax": "softmax", "_foreach_add": "_foreach_sub", "_foreach_sub": "_foreach_add", "zeros_like": "ones_like",
           "ones_like": "zeros_like"}
# Methods whose object can stand for what they give.
DROPPED = {"detach", "clamp", "clamp_min", "clamp_max", "log", "exp", "neg", "abs", "square", "sqrt", "sign", "masked_fill", "clone",
           "copy", "bool", "double", "logsumexp", "flatten"}
# Calls whose answer a `detach` may follow.
WITH_GRADIENTS = {"softmax", "log_softmax", "sum", "mean", "logsumexp", "log", "exp", "square", "masked_fill", "sigmoid", "where",
                  "digamma", "lgamma", "entr", "scatter", "normalize"}
LISTS = ast.List | ast.Tuple | ast.ListComp
TYPED = {"Annotated", "Callable", "Literal"}  # what they hold is a type


@dataclass(frozen=True)
class Mutant:
    """One change. module: dotted. scope: the qualified name of the function or class that holds it, or "". lines: those of its statement,
    first and last, both included; `at_import` where they run when the module is imported. count: of how many like it in the scope stand
    before. place and new: what the change is, to the tree."""

    module: str
    scope: str
    operator: str
    line: int
    lines: tuple[int, int]
    at_import: bool
    before: str
    after: str
    count: int
    place: Place
    new: ast.AST

    @property
    def name(self) -> str:
        """Stays as it is when other parts of the file change."""
        return f"{self.module}:{self.scope}:{self.operator}: {self.before} -> {self.after}" + (f" #{self.count}" if self.count else "")


def mutated(tree: ast.Module, mutant: Mutant) -> ast.Module:
    """A copy of the module's tree, with the change."""
    found = copy.deepcopy(tree)
    node: Any = found
    for field, index in mutant.place[:-1]:
        node = getattr(node, field) if index is None else getattr(node, field)[index]
    field, index = mutant.place[-1]
    old = getattr(node, field) if index is None else getattr(node, field)[index]
    new = copy.deepcopy(mutant.new)
    for part in ast.walk(new):
        if "lineno" in part._attributes and not hasattr(part, "lineno"):
            ast.copy_location(part, old)
    if index is None:
        setattr(node, field, new)
    else:
        getattr(node, field)[index] = new
    return ast.fix_missing_locations(found)


def mutants(path: Path, module: str) -> list[Mutant]:
    """All of a file, in the order of its text."""
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for change in _Changes(ast.parse(path.read_text())).found():
        made = Mutant(module, *change[:7], 0, *change[7:])
        count = seen.get(made.name, 0)
        seen[made.name] = count + 1
        found.append(Mutant(module, *change[:7], count, *change[7:]))
    return found


class _Changes:
    """A walk through a tree that knows in which scope and statement it is."""

    def __init__(self, tree: ast.Module):
        self.tree = tree
        self.scope: list[str] = []
        self.functions = 0  # how many enclose the place
        self.without_gradients = 0  # of them
        self.lines = (1, 1)

    def found(self) -> Iterator[tuple[Any, ...]]:
        yield from self._block(self.tree.body, (), "body")

    # ---- statements

    def _block(self, body: Sequence[ast.stmt], place: Place, field: str) -> Iterator[tuple[Any, ...]]:
        for n, statement in enumerate(body):
            yield from self._statement(statement, (*place, (field, n)))

    def _statement(self, node: ast.stmt, place: Place) -> Iterator[tuple[Any, ...]]:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.Global | ast.Nonlocal | ast.Pass):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring, or an ellipsis
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from self._definition(node, place)
            return
        parts = [getattr(node, field) for field in ("body", "handlers", "cases") if getattr(node, field, None)]
        self.lines = (node.lineno, parts[0][0].lineno - 1 if parts and parts[0][0].lineno > node.lineno else node.end_lineno)
        yield from self._removed(node, place)
        if isinstance(node, ast.Raise):
            return
        if isinstance(node, ast.If | ast.While):
            yield self._change("condition", node.test, ast.UnaryOp(ast.Not(), node.test), (*place, ("test", None)))
        if isinstance(node, ast.Continue | ast.Break):
            yield self._change("loop", node, ast.Break() if isinstance(node, ast.Continue) else ast.Continue(), place)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "target", "targets", "optional_vars", "type", "body", "orelse", "finalbody", "handlers"):
                continue
            yield from self._field(value, place, field)
        for field in ("body", "orelse", "finalbody"):
            if isinstance(getattr(node, field, None), list):
                yield from self._block(getattr(node, field), place, field)
        for n, handler in enumerate(getattr(node, "handlers", ())):
            yield from self._block(handler.body, (*place, ("handlers", n)), "body")

    def _definition(self, node: ast.FunctionDef | ast.ClassDef, place: Place) -> Iterator[tuple[Any, ...]]:
        self.scope.append(node.name)
        self.lines = (node.body[0].lineno, node.end_lineno)  # a default or a decorator shows where the body runs
        for n, decorator in enumerate(node.decorator_list):
            if ast.unparse(decorator) == "torch.no_grad()":
                yield self._change("gradients on", decorator, ast.parse("lambda f: f", mode="eval").body, (*place, ("decorator_list", n)))
        if isinstance(node, ast.FunctionDef):
            for field in ("defaults", "kw_defaults"):
                for n, default in enumerate(getattr(node.args, field)):
                    if isinstance(default, ast.Constant) and (new := _other_constant(default)) is not None:
                        yield self._change("default", default, new, (*place, ("args", None), (field, n)))
                    elif default is not None and not isinstance(default, ast.Constant):
                        yield from self._expression(default, (*place, ("args", None), (field, n)))
        without = any(ast.unparse(decorator) == "torch.no_grad()" for decorator in node.decorator_list)
        self.functions += isinstance(node, ast.FunctionDef)
        self.without_gradients += without
        yield from self._block(node.body, place, "body")
        self.functions -= isinstance(node, ast.FunctionDef)
        self.without_gradients -= without
        self.scope.pop()

    def _removed(self, node: ast.stmt, place: Place) -> Iterator[tuple[Any, ...]]:
        """Statements that do something, left out; of a `with` its body stays."""
        acts = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        keeps = isinstance(node, ast.Assign) and any(isinstance(t, ast.Attribute | ast.Subscript) for t in node.targets)
        refuses = isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" not in ast.unparse(node.exc)
        if acts or refuses or keeps and self.scope[-1:] != ["__init__"] or isinstance(node, ast.AugAssign):
            yield self._change("removed", node, ast.Pass(), place)
        if isinstance(node, ast.With) and not any(item.optional_vars for item in node.items):
            kept = ast.If(ast.Constant(True), node.body, [])
            yield self._change("removed", node, kept, place, before=f"with {', '.join(map(ast.unparse, node.items))}: ...", after="...")

    # ---- expressions

    def _field(self, value: Any, place: Place, field: str) -> Iterator[tuple[Any, ...]]:
        for n, node in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(node, ast.AST):
                yield from self._expression(node, (*place, (field, n)))

    def _expression(self, node: ast.AST, place: Place) -> Iterator[tuple[Any, ...]]:
        if isinstance(node, ast.JoinedStr) or isinstance(node, ast.Subscript) and ast.unparse(node.value) in TYPED:
            return
        for operator, new in self._changed(node):
            if operator == "detach added" and self.without_gradients:
                continue
            yield self._change(operator, node, new, place)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return  # one number
        is_types = isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass", "cast")
        for field, value in ast.iter_fields(node):
            if isinstance(node, ast.comprehension) and field == "ifs":
                for n, test in enumerate(value):
                    yield self._change("condition", test, ast.UnaryOp(ast.Not(), test), (*place, ("ifs", n)))
            if field not in ("ctx", "annotation", "target", "keys") and not is_types:
                yield from self._field(value, place, field)

    def _changed(self, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
        """What may stand in the place of an expression."""
        match node:
            case ast.Compare(left, [op], comparators) if type(op) in COMPARED:
                yield "comparison", ast.Compare(left, [COMPARED[type(op)]()], comparators)
                if isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
                    turned = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}[type(op)]()
                    yield "comparison", ast.Compare(left, [turned], comparators)
            case ast.BinOp(left, op, right) if type(op) in COMPUTED and not _is_text(left) and not _is_text(right):
                if not isinstance(left, LISTS) and not isinstance(right, LISTS):
                    yield "arithmetic", ast.BinOp(left, COMPUTED[type(op)](), right)
            case ast.UnaryOp(ast.USub(), ast.Constant()):
                yield "constant", ast.UnaryOp(ast.USub(), _other_constant(node.operand))
            case ast.UnaryOp(ast.USub() | ast.Invert() | ast.Not(), operand):
                yield "sign" if isinstance(node.op, ast.USub) else "boolean", operand
            case ast.BoolOp(op, values):
                yield "boolean", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            case ast.IfExp(test, body, orelse):
                yield "condition", ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse)
            case ast.Constant() if (new := _other_constant(node)) is not None:
                yield "constant", new
            case ast.Slice(lower, upper, step):
                if upper is not None:
                    yield "slice", ast.Slice(lower, ast.BinOp(upper, ast.Sub(), ast.Constant(1)), step)
                if lower is not None:
                    yield "slice", ast.Slice(ast.BinOp(lower, ast.Add(), ast.Constant(1)), upper, step)
            case ast.Call():
                yield from _changed_call(node)

    def _change(self, operator: str, old: ast.AST, new: ast.AST, place: Place, before: str = "", after: str = "") -> tuple[Any, ...]:
        old_line = getattr(old, "lineno", self.lines[0])
        lines = self.lines if self.functions or operator in ("default", "gradients on") else (old_line, old_line)
        at_import = not self.functions and operator not in ("default", "gradients on")
        return (".".join(self.scope), operator, old_line, lines, at_import, before or _line(old), after or _line(new), place, new)


def _changed_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    is_method = isinstance(node.func, ast.Attribute)
    name = node.func.attr if is_method else node.func.id if isinstance(node.func, ast.Name) else ""
    of = ast.unparse(node.func.value) if is_method else ""
    if name in REDUCED and (is_method and not of.endswith(("relaxation", "inner")) or REDUCED[name] in ("any", "all", "min", "max")):
        other = ast.Attribute(node.func.value, REDUCED[name], ast.Load()) if is_method else ast.Name(REDUCED[name], ast.Load())
        yield "reduction", ast.Call(other, node.args, node.keywords)
    if is_method and name in DROPPED and of not in ("torch", "F", "math"):
        yield "detach removed" if name == "detach" else "call dropped", node.func.value
    if is_method and name in WITH_GRADIENTS and ".detach()" not in of:
        yield "detach added", ast.Call(ast.Attribute(node, "detach", ast.Load()), [], [])
    if name == "sorted" and not any(k.arg == "reverse" for k in node.keywords):
        turned = ast.keyword("reverse", ast.Constant(True))
        yield "order", ast.Call(node.func, node.args, [*node.keywords, turned])
    if len(node.args) > 1 and type(node.args[0]) is type(node.args[1]):  # else one is likely of another type
        if name not in ("isinstance", "getattr", "setattr", "map") and ast.unparse(node.args[0]) != ast.unparse(node.args[1]):
            yield "arguments", ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    for n, keyword in enumerate(node.keywords):
        if keyword.arg == "keepdim":
            yield "keepdim", ast.Call(node.func, node.args, [k for m, k in enumerate(node.keywords) if m != n])


def _other_constant(node: ast.Constant) -> ast.Constant | None:
    value = node.value
    if isinstance(value, bool):
        return ast.Constant(not value)
    if isinstance(value, int):
        return ast.Constant(value + 1)
    if isinstance(value, float):
        return ast.Constant(2 * value if value else 1.0)
    return None


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str)


def _line(node: ast.AST) -> str:
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))) if not isinstance(node, ast.Slice) else _slice(node)
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:157] + "..."


def _slice(node: ast.Slice) -> str:
    return ":".join("" if part is None else _line(part) for part in (node.lower, node.upper))
