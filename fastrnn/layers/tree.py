"""TreeRNN and TreeLSTM: recurrent layers over `fastrnn.Trees`.

Letters: V nodes of all trees, K trees, D input_size, H hidden_size, N children per node in the N-ary forms.
The equations stand in `fastrnn.reference.tree`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._native import TreeStack
from .._validate import Children, Nonlinearity, check_children, check_choice, check_dtype, check_number, check_size
from ..functional import tree as functional
from ..functional.spec import NONLINEARITIES, CellSpec, spec_of
from ..functional.tree_batch import Trees
from .init import uniform
from .module import Array, Module
from .protocol import NOTHING, Context, Time


class TreeLayer(Module):
    """What TreeRNN and TreeLSTM share.

    Parameters weight_ih, weight_hh and bias start U(-1/sqrt(H), 1/sqrt(H))."""

    gates: int
    time = Time.REDUCES

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        children: Children,
        bias: bool,
        dtype: Any,
        rng: int | np.random.Generator | None,
    ) -> None:
        super().__init__()
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.child_form = check_children(children)
        self.bias = bool(bias)
        self.dtype = check_dtype("dtype", dtype)
        H, bound = self.hidden_size, self.hidden_size**-0.5
        N = self.child_form if isinstance(self.child_form, int) else 1
        kind = "TreeRNN" if self.gates == 1 else "TreeLSTM"
        rng = self._generator(rng, self.input_size, H, N, kind=kind)
        self.add_param("weight_ih", uniform(rng, (self.gates * H, self.input_size), bound, self.dtype))
        recurrent_gates = self.gates if self.gates == 1 else self.gates - 1 + N
        self.add_param("weight_hh", uniform(rng, (recurrent_gates * H, N * H), bound, self.dtype))
        if self.bias:
            self.add_param("bias", uniform(rng, (self.gates * H,), bound, self.dtype))

    def arguments(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "children": self.child_form,
            "bias": self.bias,
            "dtype": self.dtype.name,
        }

    def __call__(  # type: ignore[override]
        self, x: Array, trees: Trees, *, training: bool = False
    ) -> tuple[Array, Any]:
        """h, root: the hidden state of every node, h (V, H), and that of the roots in the form of a recurrent layer's
        state: h_root (K, H), or (h_root, c_root) for the TreeLSTM. Nothing is summed over trees: row k is tree k.

        x (V, D): the input of each node, in the order of the nodes of `trees`; or (leaves, D): the input of each leaf,
        in the order of `trees.leaf`, where inner nodes have none (a constituency tree, words at its leaves).
        Raises TypeError for what is no array, has another dtype or is no `Trees`, ValueError for a wrong shape or a
        node with more than N children.
        """
        return self._own_forward(x, context=Context(trees=trees), training=training)

    def backward(self, dh: Array | None = None, droot: Any = None) -> Array:  # type: ignore[override]
        """dx, like x: backpropagation through structure, after a call with training=True.

        A loss at every node hands in dh (V, H), one at the roots droot, in the form of root (a TreeLSTM takes a bare
        array for h_root alone); None for zeros. Parameter gradients are added to `grads`.
        Raises RuntimeError without a training call before it.
        """
        return self._own_backpropagate(dh, droot)[0]

    def check_trainable(self, *, alone: bool = True) -> None:
        raise TypeError(
            f"model: expected layers that read arrays, got {type(self).__name__}, which takes trees with each call: an "
            "optimizer trains it, step(layer.params, layer.grads)"
        )

    def _spec(self) -> CellSpec:
        """The cell that runs at each node."""
        raise NotImplementedError

    def make_stack(self) -> TreeStack:
        names = {name: name for name in ("weight_ih", "weight_hh", "bias")[: 2 + self.bias]}
        children = self.child_form if isinstance(self.child_form, int) else 0
        return TreeStack(self._params, names, children, self._spec().compiled)

    def _run(self, x: Any, trees: Any, training: bool) -> tuple[Array, Any, Any]:
        """h, h_root, c_root, which is None for a cell without c."""
        stack = None if training else self._stack or self.open_stack()
        if stack is not None and not stack.look():
            stack = None
        weights = self._params["weight_ih"], self._params["weight_hh"], self._params.get("bias")
        h, c_root, cache = functional.run_trees(self._spec(), x, trees, *weights, self.child_form, training, stack)
        if training:
            self._cache = cache
        return h, h[trees.root], c_root


class TreeRNN(TreeLayer):
    """h_j = g(W x_j + U (sum of the children's h) + b), or with a U of its own for each child's position.

    nonlinearity: "tanh", "relu", "sigmoid" or "identity".
    children: "sum", for any number of children in any order; or N: up to N children in positions 0..N-1.
    bias, dtype, rng: as for `RNN`.
    Parameters weight_ih (H, D), weight_hh (H, H) or (H, N*H), bias (H,).
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: Nonlinearity = "tanh",
        children: Children = "sum",
        bias: bool = True,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        check_choice("nonlinearity", nonlinearity, NONLINEARITIES)
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, children=children, bias=bias, dtype=dtype, rng=rng)

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"nonlinearity": self.nonlinearity}

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        h, root, _ = self._run(x, context.trees, training)
        return h, root

    def _spec(self) -> CellSpec:
        return spec_of("rnn", self.nonlinearity)

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        dx = functional.tree_rnn_backward(dy, dstate_n, self._kept(), into=self._grads)["x"]
        self._cache = None
        return dx, None


class TreeLSTM(TreeLayer):
    """Long short-term memory over trees (Tai, Socher and Manning 2015), gates i, f, g, o.

    children: "sum", the child-sum form, for any number of children in any order (dependency trees); or N, the N-ary
        form, for up to N children in positions 0..N-1, each with weights of its own in every gate, forget gates
        included (binary constituency trees: 2).
    forget_bias: a number to start the forget gates' bias at; None leaves it as the rest.
    bias, dtype, rng: as for `LSTM`.
    Parameters weight_ih (4H, D) and bias (4H,), rows i, f, g, o; weight_hh (4H, H), rows i, f, g, o, or ((3+N)H, N*H),
    rows i, f_0, ..., f_{N-1}, g, o. On trees without branches it is the `LSTM` with these weights.
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        children: Children = "sum",
        bias: bool = True,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, children=children, bias=bias, dtype=dtype, rng=rng)
        self.forget_bias = None if forget_bias is None else check_number("forget_bias", forget_bias)
        if self.forget_bias is not None:
            if not self.bias:
                raise ValueError("forget_bias: expected None, as bias is False")
            self._params["bias"][self.hidden_size : 2 * self.hidden_size] = self.forget_bias

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"forget_bias": self.forget_bias}

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        h, h_root, c_root = self._run(x, context.trees, training)
        return h, (h_root, c_root)

    def _spec(self) -> CellSpec:
        return spec_of("lstm")

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        droot = dstate_n
        if isinstance(droot, (tuple, list)):
            if len(droot) != 2:
                raise ValueError(f"droot: expected (dh_root, dc_root), got {len(droot)} entries")
            dh_root, dc_root = droot
        else:
            dh_root, dc_root = droot, None
        dx = functional.tree_lstm_backward(dy, dh_root, dc_root, self._kept(), into=self._grads)["x"]
        self._cache = None
        return dx, None
