"""Losses: each function returns ``(loss, dlogits)``, the value and its gradient.

Letters: T time steps, N batch, M classes.

All losses share the keyword ``reduction``:

``"mean"``
    the mean over all elements (cross entropy: over all targets that count), as in PyTorch.
``"sum"``
    the sum.
``"sequence"``
    the loss of RNN texts, L = sum_t L_t, where L_t is the mean of step t's elements over every
    other axis, that is over the batch (Goodfellow, Bengio and Courville 2016, section 10.2).
    ``time_axis`` says which axis is time: 0 for time-major (T, N, ...), 1 for (N, T, ...).
``"none"``
    no reduction: the loss is an array, and the gradient is that of its sum.

All take ``lengths`` too, (N,) integers 0..T in any order, for sequences of elements (T, N, ...), or (N, T, ...) with
``time_axis=1``: the steps of sequence n from lengths[n] on count nothing. They may hold anything, NaN and targets out
of range too, and get a gradient of exactly zero. "mean" is then over the elements that count; in "sequence" L_t is
still the mean over the whole batch, so that every sequence keeps its weight however long its neighbours are.

All take ``sample_weight`` as well, numbers of at least 0 of the shape of the elements' first axes: one for each
sequence or sample, or for each of its steps. Losses are multiplied by them, and "mean" divides by their sum, as
averages of scikit-learn and class weights of PyTorch do: twice the weight is twice the sample, and no weight is no
sample, whatever it holds. "sum" and "sequence" divide as without weights.

A reduced loss is a Python float, summed in float64. Arrays keep the dtype of the logits. The mean of
no elements at all is nan, with a gradient of zeros, as in PyTorch.
"""

from .checks import REDUCTIONS as REDUCTIONS
from .checks import Reduction as Reduction
from .classes import binary_cross_entropy_with_logits, cross_entropy
from .ctc import ctc
from .given import nll
from .registry import get
from .regression import huber, mae, mse, quantile

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "ctc", "get", "huber", "mae", "mse", "nll", "quantile"]
