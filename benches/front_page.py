"""Draws `front_page.svg`, the five bars of the README, from the last table in README.md beside this file.

    python benches/front_page.py

The colours are readable on white and on black, as pages are light or dark as their readers like.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
NAMES = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
WIDTH, LEFT, LINE, TOP = 720, 150, 34, 48  # pixels: of the picture, of the names, from bar to bar, above the first
OWN, OTHER, GREY = "#2f81f7", "#a8763e", "#737c86"  # the last has a contrast above 4 to white and to GitHub's black
FONT = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"'


def read_means(text: str) -> dict[str, float]:
    """Geometric means over cells and shapes of (time of the peer / time of fastrnn), forward, of the first table."""
    found: dict[str, float] = {}
    for name, mean in re.findall(r"^forward: ahead of (\S+) on .*; geometric mean ([\d.]+),", text, re.MULTILINE):
        found.setdefault(name, float(mean))
    return {NAMES[name]: found[name] for name in sorted(NAMES, key=lambda name: found[name])}


def draw(means: dict[str, float]) -> str:
    """The picture as text."""
    scale = (WIDTH - LEFT - 60) / max(means.values())
    height = TOP + LINE * len(means) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" {FONT} font-size="17" fill="{GREY}">',
        f"<title>{alternative(means)}</title>",
        f'<text x="{LEFT}" y="24" font-size="18" font-weight="bold">'
        "Forward pass: how many times as long as fastrnn</text>",
    ]
    for index, (name, mean) in enumerate(means.items()):
        y = TOP + LINE * index
        parts += [
            f'<text x="{LEFT - 12}" y="{y + 18}" text-anchor="end">{name}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{mean * scale:.1f}" height="25" rx="2" fill="{OTHER}"/>',
            f'<text x="{LEFT + mean * scale + 8:.1f}" y="{y + 18}" font-weight="bold">{mean:.1f}</text>',
        ]
    bottom = TOP + LINE * len(means)
    parts += [
        f'<path d="M{LEFT + scale:.1f} {TOP - 8}V{bottom}" stroke="{OWN}" stroke-width="3"/>',
        f'<text x="{LEFT + scale:.1f}" y="{bottom + 20}" text-anchor="middle" fill="{OWN}" font-weight="bold">'
        "fastrnn = 1</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def alternative(means: dict[str, float]) -> str:
    """What the picture says, in words."""
    return "Time of a forward pass over fastrnn's: " + ", ".join(f"{name} {mean:.1f}" for name, mean in means.items())


if __name__ == "__main__":
    numbers = read_means((HERE / "README.md").read_text(encoding="utf-8"))
    (HERE / "front_page.svg").write_text(draw(numbers), encoding="utf-8")
    print(alternative(numbers))
