"""The stateless core: forward and backward of every cell and sequence, compiled.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, G gates (RNN 1, GRU 3, LSTM 4), M outputs.
`fastrnn.reference` has the same functions with the same signatures in plain NumPy, and the derivations; here stand the
shapes and equations that a caller needs.

Arrays of one call share one dtype, float32 or float64. Sequences are time-major, x (T, N, D), output (T, N, H). They
may be strided views (`x[::-1]`, a batch-first array's `swapaxes(0, 1)`, a slice of a wider output): only the last axis
has to be contiguous, other arrays are copied first. weight_ih is (G*H, D), weight_hh (G*H, H), bias_ih and bias_hh
(G*H,) or None, gates stacked in PyTorch's order. States are (N, H); None stands for zeros. D may be 0: a recurrence
without input.

Every sequence function takes what follows, `jordan_forward` the first three of it:
lengths: integers (N,), 0..T in any order. Row n runs for lengths[n] steps; output past them is 0, and so is dx. Its
    final state is that after its last step, h0 where there is none. Work follows the sum of the lengths.
reset_mask: bool (T, N). Where True the state is zeroed before that step, and no gradient flows back across it.
mask: bool (T, N). Where False the row keeps its state, after a reset that stands there too: output is that of the step
    before, or h0 before the first real step (zeros without one, as in Keras), dx is 0, and the gradient flows straight
    through. x is not looked at there, and work follows the number of real steps.
reverse: time runs from each row's own last step to 0; output stays in its natural order.
recurrent_mask: (N, P), what h_{t-1} is multiplied with before it meets W_hh: recurrent dropout.
zoneout_h, zoneout_c: (T, N, P) and (T, N, H), what part of the state before is kept in h_t and in the LSTM's c_t.
    `fastrnn.reference.rnn_forward` and `lstm_forward` have the equations.

Errors name the argument, what was expected and what it got: TypeError for a wrong type or dtype, ValueError for a wrong
shape or an unknown option, RuntimeError for a cache that an earlier backward has consumed.
"""

from __future__ import annotations

from .jordan import jordan_backward, jordan_forward
from .linear import linear_backward, linear_forward
from .rnn import (
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
    lstm_backward,
    lstm_cell_backward,
    lstm_cell_forward,
    lstm_forward,
    rnn_backward,
    rnn_cell_backward,
    rnn_cell_forward,
    rnn_forward,
)
from .tree import tree_lstm_backward, tree_lstm_forward, tree_rnn_backward, tree_rnn_forward

__all__ = [
    "gru_backward",
    "gru_cell_backward",
    "gru_cell_forward",
    "gru_forward",
    "jordan_backward",
    "jordan_forward",
    "linear_backward",
    "linear_forward",
    "lstm_backward",
    "lstm_cell_backward",
    "lstm_cell_forward",
    "lstm_forward",
    "rnn_backward",
    "rnn_cell_backward",
    "rnn_cell_forward",
    "rnn_forward",
    "tree_lstm_backward",
    "tree_lstm_forward",
    "tree_rnn_backward",
    "tree_rnn_forward",
]
