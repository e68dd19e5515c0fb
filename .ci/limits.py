"""Says where the code is larger than agreed: 400 lines a file, 60 lines a function; tests and benches aside.

Nor may anything switch the formatters off. Prints one line for each finding; exit code 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILE, FUNCTION = 400, 60
ROOT = Path(__file__).parent.parent
SUFFIXES = (".py", ".pyx", ".pxd", ".pxi", ".c", ".h")
SWITCHED_OFF = re.compile(r"(#|//|/\*) *(fmt: *(skip|off)|clang-format off)")
CYTHON_HEAD = re.compile(r"( *)(def|cdef(?! class)|cpdef)\b.*\(")
C_HEAD = re.compile(r"[a-zA-Z_].*\w\(")


def python_functions(lines: list[str]) -> Iterator[tuple[int, int]]:
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.end_lineno or node.lineno


def cython_functions(lines: list[str]) -> Iterator[tuple[int, int]]:
    """From a head that ends in a colon, which may take several lines, to the last line that is indented deeper."""
    for first, line in enumerate(lines):
        head = CYTHON_HEAD.match(line)
        if not head:
            continue
        body = first
        while body < len(lines) - 1 and not re.search(r":\s*(#.*)?$", lines[body]):
            body += 1
        last = body
        for number in range(body + 1, len(lines)):
            text = lines[number]
            if text.strip():
                if len(text) - len(text.lstrip()) <= len(head[1]):
                    break
                last = number
        yield first + 1, last + 1


def c_functions(lines: list[str]) -> Iterator[tuple[int, int]]:
    """From a head in the first column to the next closing brace in the first column, as clang-format places them."""
    first = None
    for number, line in enumerate(lines, 1):
        if C_HEAD.match(line) and not line.rstrip().endswith(";"):
            first = number
        elif line.startswith("}") and first is not None:
            yield first, number
            first = None


def findings(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    name = path.relative_to(ROOT)
    for number, line in enumerate(lines, 1):
        if SWITCHED_OFF.search(line):
            yield f"{name}:{number}: a formatter is switched off"
    if name.parts[0] in ("tests", "benches"):
        return
    if len(lines) > FILE:
        yield f"{name}: {len(lines)} lines (at most {FILE})"
    functions = {".py": python_functions, ".c": c_functions, ".h": c_functions}.get(path.suffix, cython_functions)
    for first, last in functions(lines):
        if last - first + 1 > FUNCTION:
            yield f"{name}:{first}: a function of {last - first + 1} lines (at most {FUNCTION})"


def main() -> int:
    files = [ROOT / "setup.py"]
    for folder in ("fastrnn", "src", "tests", "benches"):
        files += [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    generated = {path.with_suffix(".c") for path in files if path.suffix == ".pyx"}
    found = [finding for path in files if path not in generated for finding in findings(path)]
    print("\n".join(found or ["no file and no function is too long"]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
