"""scikit-learn estimators: recurrent networks for sequences and series.

`RNNClassifier` and `RNNRegressor` say something of each sequence, `RNNTagger` of each step, `WindowRegressor` what
comes next in a series.

Design: an estimator is a model, a Trainer and the conversion of data around them. Validation, cloning and metadata are
scikit-learn's own; nothing of it is written again here.
"""

from importlib.util import find_spec

if find_spec("sklearn") is None:
    raise ImportError('fastrnn.sklearn needs scikit-learn: pip install "fastrnn[sklearn]"')

from .forecasting import WindowRegressor
from .sequences import RNNClassifier, RNNRegressor
from .tagger import RNNTagger

__all__ = ["RNNClassifier", "RNNRegressor", "RNNTagger", "WindowRegressor"]
