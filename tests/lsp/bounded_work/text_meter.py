"""Import hook that makes modules count the characters that strings and patterns read, and the iterations of loops.

The hook rewrites the modules of a package before they are compiled: calls of methods, slices, comparisons,
additions and loops go through a `Meter`. A search counts up to what it finds, and to its bounds where it finds nothing;
what an expression reads twice counts once. Deterministic: no clock is read.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "_text_meter"
_WITHIN = {"find", "rfind", "index", "rindex", "count"}
_ENDS = {"startswith", "endswith"}
_FIRST_TEXT = {"match", "search", "fullmatch", "finditer", "findall", "split"}


class Meter:
    """What was read since `clear`.

    Attributes:
        characters: characters that calls could read or copied.
        turns: iterations of loops in Python.
        most: the longest text that one call was offered, and what was called.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.characters = self.turns = 0
        self.most: tuple[int, str] = (0, "")

    def read(self, num: int, what: str) -> None:
        self.characters += num
        self.most = max(self.most, (num, what))

    def call(self, receiver: Any, name: str, *args: Any, **options: Any) -> Any:
        result = getattr(receiver, name)(*args, **options)
        if isinstance(receiver, str | bytes):
            self.read(_read_by(receiver, name, args, result), f"str.{name}")
        elif isinstance(receiver, re.Pattern):
            texts = args[1:] if name in {"sub", "subn"} else args
            found = result.end() - _start(texts) if isinstance(result, re.Match) else _span(texts[0], texts[1:])
            self.read(found, f"{receiver.pattern[:60]!r}.{name}")
        elif receiver is re and name in {*_FIRST_TEXT, "sub"}:
            self.read(len(args[2 if name == "sub" else 1]), f"re.{name} {str(args[0])[:60]!r}")
        elif isinstance(receiver, list) and name in {"count", "index"}:
            self.turns += len(receiver)
        return result

    def function(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if function is hash and isinstance(args[0], str | tuple):
            self.read(_size(args[0]), "hash")
        elif function in {list, tuple, set, frozenset, sorted, max, min, sum, any, all} and args:
            return function(self.loop(args[0]), *args[1:], **options) if len(args) == 1 else function(*args, **options)
        return function(*args, **options)

    def item(self, receiver: Any, index: Any) -> Any:
        result = receiver[index]
        if isinstance(receiver, str) and isinstance(index, slice):
            self.read(0 if result is receiver else len(result), "slice")
        elif isinstance(receiver, list | tuple) and isinstance(index, slice):
            self.turns += len(result)
        return result

    def compare(self, left: Any, operator: str, right: Any) -> bool:
        if operator in {"in", "not in"}:
            if isinstance(right, str):
                at = right.find(left)
                self.read(len(right) if at < 0 else at + len(left), operator)
            elif isinstance(right, list | tuple):
                self.turns += len(right)
        elif isinstance(left, str) and isinstance(right, str) and left is not right and len(left) == len(right):
            self.read(len(left), operator)
        return _OPERATORS[operator](left, right)

    def add(self, left: Any, right: Any) -> Any:
        result = left + right
        if isinstance(result, str):
            self.read(len(result), "+")
        return result

    def join(self, text: str) -> str:
        self.read(len(text), "f-string")
        return text

    def loop(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.turns += 1
            yield item

    def turn(self) -> bool:
        self.turns += 1
        return True


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "in": lambda left, right: left in right,
    "not in": lambda left, right: left not in right,
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
}
_SIGNS = {ast.In: "in", ast.NotIn: "not in", ast.Eq: "==", ast.NotEq: "!="}


def _size(value: object) -> int:
    if isinstance(value, tuple):
        return sum(map(_size, value))
    return len(value) if isinstance(value, str) else 0


def _span(text: Any, bounds: Sequence[Any]) -> int:
    start, end = (*bounds, None, None)[:2]
    return len(range(*slice(start, end).indices(len(text))))


def _start(args: Sequence[Any]) -> int:
    return args[1] if len(args) > 1 else 0


def _read_by(text: str | bytes, name: str, args: tuple[Any, ...], result: Any) -> int:
    if name in {"find", "index"} and result >= 0:
        return result + len(args[0]) - _start(args)
    if name in {"rfind", "rindex"} and result >= 0:
        return _start(args) + _span(text, args[1:]) - result
    if name in _WITHIN:
        return _span(text, args[1:])
    if name in _ENDS:
        return max(map(len, args[0]), default=0) if isinstance(args[0], tuple) else len(args[0])
    return len(result) if name == "join" else len(text)


class _Rewriter(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        function = node.func
        if isinstance(function, ast.Attribute) and not isinstance(function.value, ast.Call | ast.Name):
            return self._through("call", [function.value, ast.Constant(function.attr), *node.args], node)
        if isinstance(function, ast.Attribute):
            is_super = isinstance(function.value, ast.Call) and getattr(function.value.func, "id", "") == "super"
            if not is_super:
                return self._through("call", [function.value, ast.Constant(function.attr), *node.args], node)
        if isinstance(function, ast.Name) and function.id not in {"super", "locals", "vars", "isinstance"}:
            return self._through("function", [function, *node.args], node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if not (isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Slice)):
            return node
        parts = [part or ast.Constant(None) for part in (node.slice.lower, node.slice.upper, node.slice.step)]
        index = ast.Call(ast.Name("slice", ast.Load()), parts, [])
        return self._through("item", [node.value, index], node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) > 1 or (sign := _SIGNS.get(type(node.ops[0]))) is None:
            return node
        return self._through("compare", [node.left, ast.Constant(sign), node.comparators[0]], node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return self._through("add", [node.left, node.right], node) if isinstance(node.op, ast.Add) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        return self._through("join", [node], node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        node.value = self.visit(node.value)
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        node.iter = self._through("loop", [node.iter], node.iter)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        if not node.is_async:
            node.iter = self._through("loop", [node.iter], node.iter)
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        self.generic_visit(node)
        turn = self._through("turn", [], node.test)
        node.test = ast.copy_location(ast.BoolOp(ast.And(), [turn, node.test]), node.test)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def _through(self, name: str, args: list[Any], node: Any) -> ast.expr:
        keywords = node.keywords if name in {"call", "function"} else []
        method = ast.Attribute(ast.Name(_NAME, ast.Load()), name, ast.Load())
        return ast.copy_location(ast.Call(method, args, keywords), node)


class _Loader(importlib.machinery.SourceFileLoader):
    meter: Meter

    def get_code(self, fullname: str) -> Any:
        path = Path(self.get_filename(fullname))
        tree = _Rewriter().visit(ast.parse(path.read_text(encoding="utf-8")))
        return compile(ast.fix_missing_locations(tree), str(path), "exec")

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, _NAME, self.meter)
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, package: str, meter: Meter) -> None:
        self._package = package
        self._meter = meter

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname.partition(".")[0] != self._package:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            loader = _Loader(fullname, str(spec.origin))
            loader.meter = self._meter
            spec.loader = loader
        return spec


def metered(package: str) -> Meter:
    """Makes every module of a package that is imported from now on count what it reads; none may be loaded yet."""
    assert package not in sys.modules, f"{package} is loaded already"
    meter = Meter()
    sys.meta_path.insert(0, _Finder(package, meter))
    return meter
