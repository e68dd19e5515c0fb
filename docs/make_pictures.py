"""Make the pictures of docs/pictures.md: its own snippets are run, twice, for light and for dark pages.

    python docs/make_pictures.py [NAME...]      # names of pictures, such as gates; default: all

Where a snippet says `"gates.png"` the second run writes "gates-dark.png", with dark=True. They share one namespace, so
that a model is trained once; with names, snippets that make other pictures still run, but write none of them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
DRAWS = re.compile(r'"(\w+)\.png"')


def main(names: list[str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    snippets = re.findall(r"```python\n(.*?)```", (HERE / "pictures.md").read_text(encoding="utf-8"), re.DOTALL)
    known = [name for snippet in snippets for name in DRAWS.findall(snippet)]
    for name in names:
        if name not in known:
            sys.exit(f"expected one of {', '.join(known)}, got {name!r}")
    namespace: dict[str, object] = {}
    for number, snippet in enumerate(snippets, 1):
        exec(compile(_lines(snippet, draws=False), f"pictures.md, snippet {number}", "exec"), namespace)
        made = [name for name in DRAWS.findall(snippet) if not names or name in names]
        if made:
            for dark in (False, True):
                exec(compile(_drawn(snippet, dark), f"pictures.md, snippet {number}", "exec"), namespace)
            print(*made)


def _lines(snippet: str, *, draws: bool) -> str:
    """The lines that draw, which are the last statement, or all the others."""
    lines = snippet.splitlines()
    first = next((k for k, line in enumerate(lines) if DRAWS.search(line)), len(lines))
    return "\n".join(lines[first:] if draws else lines[:first])


def _drawn(snippet: str, dark: bool) -> str:
    ending = "-dark.png" if dark else ".png"
    return DRAWS.sub(lambda name: f"r{str(PICTURES / (name[1] + ending))!r}, dark={dark}", _lines(snippet, draws=True))


if __name__ == "__main__":
    main(sys.argv[1:])
