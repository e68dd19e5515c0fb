"""Every name of fastrnn that a docstring or a page mentions is there: who reads it can type it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastrnn

PACKAGE = Path(fastrnn.__file__).parent
ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benches/*.md")]
DOTTED = re.compile(r"(?<![\w./-])fastrnn(?:\.[A-Za-z_]\w*)+")
CLASS = re.compile(r"(?<!`)`([A-Z][a-z]\w*)`(?!`)")
# Where a class that is named without its module may be found: what the user has imported, or the page is about.
HOMES = ("fastrnn", "fastrnn.functional", "fastrnn.words", "fastrnn.models", "fastrnn.plot")


def exists(name: str) -> bool:
    """Whether `name` can be reached from `import fastrnn`, and imports of its modules."""
    at: Any = fastrnn
    parts = name.split(".")
    for k, part in enumerate(parts[1:], 2):
        path = ".".join(parts[:k])
        if not hasattr(at, part) and inspect.ismodule(at) and _is_module(path):
            try:
                importlib.import_module(path)
            except ImportError:
                return True  # needs a package that is missing here: nothing can be said of what is in it
        if not hasattr(at, part):
            return False
        at = getattr(at, part)
    return True


def _is_module(path: str) -> bool:
    return importlib.util.find_spec(path) is not None


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def public() -> Iterator[tuple[str, Any]]:
    """What `fastrnn` exports, and the methods that help() shows of it."""
    for home in HOMES:
        module = importlib.import_module(home)
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{home}.{name}", value
            for method, function in inspect.getmembers(value, callable) if inspect.isclass(value) else ():
                if not method.startswith("_") or method == "__call__":
                    yield f"{home}.{name}.{method}", function


def test_a_wrong_name_is_seen():
    assert exists("fastrnn.functional.gru_forward") and exists("fastrnn.LSTM.from_gates")
    assert not exists("fastrnn.functional.gru_foward") and not exists("fastrnn.GRU.cells")


def test_names_in_docstrings():
    found = {
        (str(path), name) for path in PACKAGE.rglob("*.py") for doc in docstrings(path) for name in DOTTED.findall(doc)
    }
    assert len(found) > 50
    assert not sorted(item for item in found if not exists(item[1]))


@pytest.mark.skipif(not PAGES, reason="no pages beside tests/")
def test_names_on_pages():
    found = {(page.name, name) for page in PAGES for name in DOTTED.findall(page.read_text(encoding="utf-8"))}
    assert len(found) > 50
    assert not sorted(item for item in found if not exists(item[1]))


def test_classes_that_help_shows():
    """Where a docstring of something exported says `Name`, that is a class that one can reach."""
    named = {(where, name) for where, value in public() for name in CLASS.findall(inspect.getdoc(value) or "")}
    assert len(named) > 30
    assert not sorted((w, name) for w, name in named if not any(exists(f"{home}.{name}") for home in HOMES))
