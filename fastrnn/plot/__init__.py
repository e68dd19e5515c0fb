"""Pictures, for which matplotlib is needed: pip install "fastrnn[plot]". It is imported when something is drawn.

Each function returns a figure of matplotlib; `path` writes it too (.png, .svg, .pdf), `dark` is for dark pages.
"""

from .curves import draw_learning_curve, gradient_norms, learning_curve
from .figure import MissingMatplotlib, make_figure
from .states import alignment, gates, hidden_states
from .unfolded import unfolded
from .words import word_vectors

__all__ = [
    "MissingMatplotlib",
    "alignment",
    "draw_learning_curve",
    "gates",
    "gradient_norms",
    "hidden_states",
    "learning_curve",
    "make_figure",
    "unfolded",
    "word_vectors",
]
