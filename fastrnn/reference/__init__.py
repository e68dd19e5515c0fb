"""The stateless core in plain NumPy: the specification that `fastrnn.functional` is tested against.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, G gates (RNN 1, GRU 3, LSTM 4), M outputs.
All arrays of a call share one dtype, float32 or float64, and results have it too. Sequences are time-major:
x (T, N, D), output (T, N, H), states (N, H). Weights have PyTorch's layout: weight_ih (G*H, D),
weight_hh (G*H, H), bias_ih and bias_hh (G*H,) or None, gates stacked in the order given with each cell.
D = 0 is allowed: a recurrence without input.

In the equations x_t, h_t are column vectors, * is elementwise, s is the logistic sigmoid and d<name> is the
gradient of the loss with respect to <name>. For the notation of RNN textbooks: W_hx = W_ih, W_hh = W_hh,
b_h = b_ih + b_hh, W_hy = weight_hy, b_y = bias_y. Two rules carry every derivation:

    a = W v + b      =>  dv = W^T da,   dW = sum over the batch of da v^T,   db = sum over the batch of da
    y = g(a)         =>  da = dy * g'(a), with s' = s (1 - s), tanh' = 1 - tanh^2

A cell is one step. A sequence is the cell cascaded over time, each step starting from the state before it;
its backward (backpropagation through time) cascades the cell's backward in reverse: the gradient that arrives
at h_t is doutput_t plus the dh that step t+1 hands back, and weight gradients add up over the steps. The rows
of a batch may end at different times (`lengths`), start afresh in the middle (`reset_mask`), run backwards
(`reverse`), skip steps (`mask`) and have noise in their recurrence (`recurrent_mask`, `zoneout_h`, `zoneout_c`).
What the cells share is written once, in `scan`; each cell has a file of its own.

Bad arguments raise one error that names the argument: TypeError for a wrong type or dtype, ValueError for a
wrong shape or an unknown option, RuntimeError for a cache that an earlier backward has consumed.
"""

from .gru import gru_backward, gru_cell_backward, gru_cell_forward, gru_forward
from .jordan import jordan_backward, jordan_forward
from .linear import linear_backward, linear_forward
from .lstm import lstm_backward, lstm_cell_backward, lstm_cell_forward, lstm_forward
from .rnn import rnn_backward, rnn_cell_backward, rnn_cell_forward, rnn_forward
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
