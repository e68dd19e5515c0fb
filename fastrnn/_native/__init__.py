"""The compiled core. Each module has its topic; `_runtime` is the one that the C objects are linked into.

_runtime    threads, instruction set, precision, workspaces     _rnn, _step  a layer over a sequence, a step
_plan       how a call is shared out                            _stream  a chain of layers, step by step
_arrays     checks of arrays                                    _tree, _tree_stack: a layer over trees
_sequence   the loops over time                                 _loss, _optim, _token_rows
_lengths, _rows: which rows run when                            _stack   layers that run at once, packed once
_tensors    a call of such a stack on torch's tensors           _watched  whether weights have changed
_training   such a stack in training, forward and back          _infer, _chain_layer, _chooser: parts of these
_subset     some rows of a batch
"""

from ._loss import count_classes, cross_entropy, ctc
from ._optim import clip_gradients, optimizer_step, zero_gradients
from ._plan import force_plan
from ._rnn import SequenceCache, backward, forward
from ._runtime import (
    borrow_threads,
    emulate_amx,
    free_kept,
    get_matmul_precision,
    get_num_threads,
    isa,
    isas,
    kept_bytes,
    set_matmul_precision,
    set_num_threads,
    threads_of,
    use_isa,
    use_vnni,
    why_no_amx,
)
from ._sequence import CompiledCell
from ._stack import Stack
from ._step import StepCache, cell_forward
from ._stream import Chain
from ._subset import row_indices
from ._token_rows import sum_rows, take_rows
from ._training import map_backward, map_forward, train_backward, train_forward
from ._tree import TreeCache, tree_backward, tree_forward
from ._tree_stack import TreeStack

__all__ = [
    "Chain",
    "CompiledCell",
    "SequenceCache",
    "Stack",
    "StepCache",
    "TreeCache",
    "TreeStack",
    "backward",
    "borrow_threads",
    "cell_forward",
    "clip_gradients",
    "count_classes",
    "cross_entropy",
    "ctc",
    "emulate_amx",
    "force_plan",
    "forward",
    "free_kept",
    "get_matmul_precision",
    "get_num_threads",
    "isa",
    "isas",
    "kept_bytes",
    "map_backward",
    "map_forward",
    "optimizer_step",
    "row_indices",
    "set_matmul_precision",
    "set_num_threads",
    "sum_rows",
    "take_rows",
    "threads_of",
    "train_backward",
    "train_forward",
    "tree_backward",
    "tree_forward",
    "use_isa",
    "use_vnni",
    "why_no_amx",
    "zero_gradients",
]
