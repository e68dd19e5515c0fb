"""docs/text.md and docs/pictures.md: their snippets run, with less training; each picture of the page is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
LESS = {
    "text.md": {
        "fastrnn.models.help_topics()  ": "fastrnn.models.help_topics()[:60_000]  ",
        "256, num_layers": "16, num_layers",
        "epochs=5,": "epochs=1,",
        "epochs=10)": "epochs=1, progress=False)",
    },
    "pictures.md": {
        "[:150_000]": "[:30_000]",
        "epochs=6,": "epochs=1,",
        "epochs=15,": "epochs=1,",
        "dates(8000,": "dates(64,",
        "epochs=60,": "epochs=2,",
    },
}


@pytest.mark.skipif(not DOCS.exists(), reason="no docs beside tests/")
@pytest.mark.parametrize("page", LESS)
def test_snippets(page, tmp_path, monkeypatch, capsys):
    if page == "pictures.md":
        pytest.importorskip("matplotlib")
    text = (DOCS / page).read_text(encoding="utf-8")
    pictures = re.findall(r'(?:src|srcset)="(pictures/[\w-]+\.png)"', text)
    for long, short in LESS[page].items():
        assert long in text, long
        text = text.replace(long, short)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        exec(compile(snippet, f"{page}, snippet {number}", "exec"), namespace)
    for picture in pictures:
        assert (DOCS / picture).exists(), picture
        name = Path(picture).name.replace("-dark", "")
        assert (tmp_path / name).stat().st_size > 5000
    if page == "text.md":
        assert "RowGradient(2 of 50000 rows of 128, float32)" in capsys.readouterr().out
