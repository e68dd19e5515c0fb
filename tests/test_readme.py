"""README.md and pages of docs/: their Python runs from top to bottom in one namespace, with less training."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import fastrnn

README = Path(__file__).parent.parent / "README.md"
PAGES = [README.parent / "docs" / name for name in ("sequences.md", "layers.md", "training.md")]
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
NEEDS = {
    "torch.nn": "torch",
    "japanese_vowels": "aeon",
    "pandas": "pandas",
    "fastrnn.sklearn": "sklearn",
}  # what stands in a snippet, and the package that it takes


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


# The front page is enough -------------------------------------------------------------------------------------------

SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL) if README.exists() else []


def run_snippet(word):
    """The one that has this word in it, by itself."""
    import numpy

    (snippet,) = [snippet for snippet in SNIPPETS if word in snippet]
    namespace = {"fastrnn": fastrnn, "np": numpy}
    exec(compile(snippet, "README.md", "exec"), namespace)
    return namespace


@pytest.mark.skipif(not SNIPPETS, reason="no README.md beside tests/")
def test_a_ragged_tagger_learns_its_tags(capsys):
    found = run_snippet("tagger")
    assert capsys.readouterr().out.count("array") == 4
    tagged = [logits.argmax(axis=1).tolist() for logits in found["trainer"].predict(found["words"])]
    assert sum(map(len, tagged)) == 10
    right = sum(a == b for one, other in zip(tagged, found["tags"]) for a, b in zip(one, other))
    assert right >= 9


@pytest.mark.skipif(not SNIPPETS, reason="no README.md beside tests/")
def test_a_forecast_of_a_frame_follows_it(capsys):
    numpy, _ = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    found = run_snippet("WindowRegressor")
    assert capsys.readouterr().out == "(24, 2)\n"
    coming = numpy.arange(500, 524) / 4
    off = found["forecaster"].predict() - numpy.stack([numpy.sin(coming), numpy.cos(coming)], axis=1)
    assert numpy.abs(off).mean() < 0.2


@pytest.mark.skipif(not SNIPPETS, reason="no README.md beside tests/")
def test_the_chart_is_that_of_the_committed_numbers(monkeypatch):
    benches = README.parent / "benches"
    monkeypatch.syspath_prepend(str(benches))
    import front_page

    means = front_page.read_means((benches / "README.md").read_text(encoding="utf-8"))
    assert len(means) == 5
    assert (benches / "front_page.svg").read_text(encoding="utf-8") == front_page.draw(means)
    page, project = README.read_text(encoding="utf-8"), (README.parent / "pyproject.toml").read_text(encoding="utf-8")
    (picture,) = re.findall(r"!\[(.*?)\]\((.*?)\)", page)
    assert picture[0] == front_page.alternative(means)
    repository = re.search(r'^Repository = "https://github.com/(.*?)"$', project, re.MULTILINE)
    assert repository and picture[1] == f"https://raw.githubusercontent.com/{repository[1]}/main/benches/front_page.svg"


@pytest.mark.skipif(not SNIPPETS, reason="no README.md beside tests/")
def test_links_of_the_front_page_lead_somewhere():
    pages = [README, *sorted((README.parent / "docs").glob("*.md"))]
    for page in pages:
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:)(.*?)\)", text):
            file, _, heading = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {link}"
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings]
            assert not heading or heading in slugs, f"{page.name}: {link}"
