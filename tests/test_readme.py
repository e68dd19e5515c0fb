"""README.md and pages of docs/: their Python runs from top to bottom in one namespace, with less training."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PAGES = [README.parent / "docs" / name for name in ("sequences.md", "layers.md")]
LESS = {
    "epochs=10,": "epochs=1,",
    "epochs=15,": "epochs=1,",
    "range(40)": "range(1)",
    "adding_problem(2000, 200, rng)": "adding_problem(100, 200, rng)",
    "dates(8500,": "dates(150,",
    "[:8000]": "[:100]",
    "[8000:]": "[100:]",
    "[8000:8003]": "[100:103]",
}
NEEDS = {"torch.nn": "torch", "japanese_vowels": "aeon"}  # what stands in a snippet, and the package that it takes


@pytest.mark.skipif(not README.exists(), reason="no README.md beside tests/")
def test_snippets(tmp_path, monkeypatch, capsys):
    text = "".join(page.read_text(encoding="utf-8") for page in (README, *PAGES))
    for long, short in LESS.items():
        assert long in text
        text = text.replace(long, short)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        if any(word in snippet and importlib.util.find_spec(package) is None for word, package in NEEDS.items()):
            continue
        exec(compile(snippet, f"README.md, snippet {number}", "exec"), namespace)
    assert "all gradients agree" in capsys.readouterr().out
    assert (tmp_path / "digits.safetensors").exists()
