"""Names in Python blocks that cannot run here: imports of ours, attributes and calls of what is known are resolved."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import typing
from dataclasses import dataclass
from typing import Any

from tests.repository import FILES

OURS = "vitlens"
SLOW = "vitlens.adapters.standard."
"""Modules below it import libraries for many seconds: of them only the source is read."""


class WrongName(Exception):
    """A name, an attribute or an argument that nothing has."""


@dataclass(frozen=True)
class Instance:
    """A value of which only the class is known."""

    kind: type


UNKNOWN = object()
"""What a value is taken for of which nothing is known."""


def check_names(code: str, known: dict[str, Any]) -> None:
    """Raises WrongName, or SyntaxError; `known` has the names of the blocks above, and gets those of this one."""
    _Reader(known).visit(ast.parse(code))


class _Reader(ast.NodeVisitor):
    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            module = self.module(alias.name)
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            self.known[alias.asname or whole] = self.module(whole) if module is not UNKNOWN else UNKNOWN

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self.module(node.module or "")
        for alias in node.names:
            found = UNKNOWN
            if (node.module or "").startswith(SLOW) and alias.name not in _defined(node.module or ""):
                raise WrongName(f"{node.module} has no {alias.name}")
            if module is not UNKNOWN:
                if not hasattr(module, alias.name) and importlib.util.find_spec(f"{node.module}.{alias.name}") is None:
                    raise WrongName(f"{node.module} has no {alias.name}")
                found = getattr(module, alias.name, UNKNOWN)
            self.known[alias.asname or alias.name] = found

    def module(self, name: str) -> Any:
        """The module if it is ours; of others only that it is there."""
        if name.partition(".")[0] != OURS:
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                raise WrongName(f"there is no module {name}")
            return UNKNOWN
        if name.startswith(SLOW):
            if name not in FILES:
                raise WrongName(f"there is no module {name}")
            return UNKNOWN
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise WrongName(f"there is no module {name}") from error

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Name):
                    self.known[part.id] = value if part is target else UNKNOWN

    def visit_For(self, node: ast.For) -> None:
        self.value(node.iter)
        self.forget(node.target)
        for line in node.body:
            self.visit(line)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            value = self.value(item.context_expr)
            if isinstance(item.optional_vars, ast.Name):
                self.known[item.optional_vars.id] = value
        for line in node.body:
            self.visit(line)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.known[node.name] = UNKNOWN

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.known[node.name] = UNKNOWN

    def visit_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def forget(self, target: ast.AST) -> None:
        self.known.update({part.id: UNKNOWN for part in ast.walk(target) if isinstance(part, ast.Name)})

    def value(self, node: ast.AST) -> Any:
        """What an expression gives, as far as it is known; all that it holds is checked."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id, UNKNOWN)
        if isinstance(node, ast.Attribute):
            return attribute(self.value(node.value), node.attr)
        if isinstance(node, ast.Call):
            function = self.value(node.func)
            for part in [*node.args, *(keyword.value for keyword in node.keywords)]:
                self.value(part)
            return result(function, node)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
            for loop in node.generators:
                self.forget(loop.target)
        for child in ast.iter_child_nodes(node):
            self.value(child)
        return UNKNOWN


def attribute(owner: Any, name: str) -> Any:
    """`owner.name`, if `owner` is ours."""
    kind = owner.kind if isinstance(owner, Instance) else owner
    if owner is UNKNOWN or not _ours(kind):
        return UNKNOWN
    if isinstance(owner, Instance):
        found = inspect.getattr_static(kind, name, None)
        if isinstance(found, property):
            return _returned(found.fget, kind)
        if found is None and not _set_by(kind, name):
            raise WrongName(f"a {kind.__name__} has no {name}")
        return Method(getattr(kind, name), kind) if inspect.isfunction(found) else getattr(kind, name, UNKNOWN)
    if not hasattr(owner, name) and not (inspect.ismodule(owner) and importlib.util.find_spec(f"{owner.__name__}.{name}")):
        raise WrongName(f"{getattr(owner, '__name__', owner)} has no {name}")
    return getattr(owner, name, UNKNOWN)


@dataclass(frozen=True)
class Method:
    """A function of an instance, whose first argument is given."""

    function: Any
    kind: type


def result(function: Any, call: ast.Call) -> Any:
    """What a call gives, after its arguments were laid into the signature."""
    kind = function.kind if isinstance(function, Method) else getattr(function, "__self__", None)
    called = function.function if isinstance(function, Method) else function
    if called is UNKNOWN or not callable(called) or not _ours(called):
        return UNKNOWN
    spread = any(isinstance(part, ast.Starred) for part in call.args) or any(keyword.arg is None for keyword in call.keywords)
    if not spread:
        given = [UNKNOWN] * (len(call.args) + isinstance(function, Method))
        try:
            inspect.signature(called).bind(*given, **{str(keyword.arg): UNKNOWN for keyword in call.keywords})
        except TypeError as error:
            raise WrongName(f"{called.__qualname__}: {error}") from error
    if inspect.isclass(called):
        return Instance(called)
    return _returned(called, kind)


def _returned(function: Any, kind: Any) -> Any:
    """An instance of what a function, a member of `kind`, is annotated to return."""
    if getattr(function, "__annotations__", {}).get("return") in ("Self", getattr(kind, "__name__", "Self")):
        return Instance(kind)
    try:
        hint = typing.get_type_hints(function).get("return")
    except NameError:  # a name that is imported for type checkers only
        return UNKNOWN
    return Instance(hint) if inspect.isclass(hint) and _ours(hint) else UNKNOWN


def _defined(module: str) -> set[str]:
    """The names that a module's source defines."""
    body = ast.parse(FILES[module].read_text(encoding="utf-8")).body
    return {getattr(line, "name", "") for line in body}


def _ours(thing: Any) -> bool:
    name = thing.__name__ if inspect.ismodule(thing) else getattr(thing, "__module__", None) or ""
    return name.partition(".")[0] == OURS


def _set_by(kind: type, name: str) -> bool:
    """Whether instances have an attribute: a field, or one that the class's own code sets."""
    if any(name in vars(base).get("__annotations__", {}) for base in kind.__mro__):
        return True
    return any(re.search(rf"\bself\.{name}\b", inspect.getsource(base)) for base in kind.__mro__ if _ours(base))
