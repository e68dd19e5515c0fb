"""Jordan: a recurrent network that is fed its own output, or in training the target in its place.

Letters: T time steps, N batch, D input_size, H hidden_size, M output_size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._native import Stack
from .._validate import (
    Nonlinearity,
    OutputActivation,
    as_real,
    check_choice,
    check_dtype,
    check_reset_mask,
    check_share,
    check_size,
    check_state,
    own_generator,
)
from ..functional.spec import NONLINEARITIES, OUTPUT_ACTIVATIONS, spec_of
from .feedback import FreeRunning, NoRows, TeacherForced
from .init import uniform
from .layout import active_lengths, as_given, read_doutput, time_major, time_major_mask
from .module import Array
from .protocol import NOTHING, Context, StateSpec
from .stateful import Stateful


class Jordan(Stateful):
    """Output feedback (Jordan 1986, Serial order: a parallel distributed processing approach):

        h_t = f(W_ih x_t + W_yh y_{t-1} + b_h)      f = nonlinearity: "tanh", "relu", "sigmoid" or "identity"
        y_t = g(W_hy h_t + b_y)                     g = output_activation, any of these or "softmax"

    Parameters weight_ih (H, D), weight_yh (H, M), bias_h (H,), weight_hy (M, H), bias_y (M,); all start
    U(-1/sqrt(H), 1/sqrt(H)), as those of PyTorch's RNN and of a Linear behind it.

    output, y_n = layer(x, state=None, *, steps=None, targets=None, teacher_forcing=None, lengths=None,
                        reset_mask=None, mask=None, training=False)
        x (T, N, D), or (N, T, D) with batch_first, or (T, D) for one sequence, in the layer's dtype. state is y_{-1},
        (1, N, M), without a batch axis (1, M); None for zeros. output is y (T, N, M), laid out as x. x=None with
        steps=T leaves the input out, y_t = F(y_{t-1}); the batch is then that of the state, one sequence without one.
        targets, laid out as output: the true outputs. What step t is fed in the place of y_{t-1} is
        - without targets, or with teacher_forcing=0: the network's own output. It runs freely;
        - with teacher_forcing=1: targets[t-1]. The steps are then independent of each other and all computed at once;
        - with teacher_forcing between: one or the other, drawn for each step and row with that probability of the
          target (scheduled sampling: Bengio et al. 2015). Gradients flow through own outputs.
        Step 0 is fed the state. teacher_forcing=None takes the layer's, which may be changed from epoch to epoch.
        y_n, like state, is what the step after the last would be fed: the last target where teacher_forcing is 1 and
        targets came, otherwise the last output. lengths (N,), 0..T: outputs past a length are 0. reset_mask (T, N),
        with batch_first too: where True that step is fed zeros. mask, of the first axes of x: where False the row
        passes over that step: the next one is fed what it would have been fed, the output is that of the step before,
        or what the row's first step would be fed.

    dx, dstate0 = layer.backward(doutput, dstate_n=None)
        Exact gradients of what was computed: through the own outputs that were fed back, not through targets.

    A `Sequential` that ends with this layer can be trained as one: the trainer gives it the targets in training, and
    evaluates and predicts with the network running freely.
    Raises TypeError and ValueError that name the argument, RuntimeError for a backward without a training call.
    """

    accepts = frozenset({"state", "lengths", "reset_mask", "mask", "targets"})
    _arguments = (
        "input_size",
        "hidden_size",
        "output_size",
        "nonlinearity",
        "output_activation",
        "teacher_forcing",
        "bias",
        "batch_first",
        "dtype",
    )
    batch_first: bool
    _rng: np.random.Generator

    reads = "features"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        nonlinearity: Nonlinearity = "tanh",
        output_activation: OutputActivation = "identity",
        teacher_forcing: float = 1.0,
        bias: bool = True,
        batch_first: bool = False,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.output_size = check_size("output_size", output_size)
        check_choice("nonlinearity", nonlinearity, NONLINEARITIES)
        check_choice("output_activation", output_activation, OUTPUT_ACTIVATIONS)
        self.nonlinearity, self.output_activation = nonlinearity, output_activation
        self.teacher_forcing = check_share("teacher_forcing", teacher_forcing)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dtype = check_dtype("dtype", dtype)
        self.features = self.input_size
        D, H, M = self.input_size, self.hidden_size, self.output_size
        rng = self._generator(rng, D, H, M, kind="Jordan")
        shapes = {"weight_ih": (H, D), "weight_yh": (H, M), "bias_h": (H,), "weight_hy": (M, H), "bias_y": (M,)}
        for name, shape in shapes.items():
            if self.bias or not name.startswith("bias"):
                self.add_param(name, uniform(rng, shape, H**-0.5, self.dtype))
        self._rng = own_generator(rng)

    @property
    def state_spec(self) -> StateSpec:
        return StateSpec(("y",), (self.output_size,))

    # --- forward and, under it, backward ------------------------------------------------------------------------------

    def __call__(
        self,
        x: Array | None,
        state: Array | None = None,
        *,
        steps: int | None = None,
        targets: Array | None = None,
        teacher_forcing: float | None = None,
        lengths: Array | None = None,
        reset_mask: Array | None = None,
        mask: Any = None,
        training: bool = False,
    ) -> tuple[Array, Array]:
        """output, y_n: see the class."""
        context = Context(lengths, reset_mask, targets, steps, teacher_forcing, mask=mask)
        return self._own_forward(x, state, context=context, training=training)

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        lengths, reset_mask, steps = context.lengths, context.reset_mask, context.steps
        targets, teacher_forcing = context.targets, context.teacher_forcing
        share = check_share("teacher_forcing", self.teacher_forcing if teacher_forcing is None else teacher_forcing)
        if (x is None) == (steps is None):
            raise ValueError("steps: expected a number of steps with x None, and None with an x")
        if x is None:
            batched = state is None or np.ndim(state) == 3
            x = np.zeros((check_size("steps", steps), np.shape(state)[1] if np.ndim(state) == 3 else 1, 0), self.dtype)
        else:
            x = as_real("x", x, self.dtype)
            batched, x = np.ndim(x) == 3, time_major("x", x, self.dtype, self.batch_first, self.input_size)
        T, N, _ = x.shape
        y0 = self._unpack("state", state, N, batched)
        lengths = active_lengths(lengths, T, N, batched)
        rows = (
            lengths,
            check_reset_mask(reset_mask, T, N),
            time_major_mask(context.mask, T, N, batched, self.batch_first),
        )
        if targets is not None:
            targets = self._check_targets(targets, T, N, batched)
        run: FreeRunning | TeacherForced | NoRows
        if not N:
            run = NoRows(self, x)
        elif targets is None or not share:
            run = FreeRunning(self, x, y0, *rows, training)
        elif share == 1:
            run = TeacherForced(self, x, targets, y0, *rows, training)
        else:
            forced = self._rng.random((T, N)) < share
            run = FreeRunning(self, x, y0, *rows, training, (targets, forced))
        if training:
            self._cache = run, (T, N, self.output_size), batched
        return as_given(run.y, batched, self.batch_first), run.y_n[None] if batched else run.y_n

    def make_stack(self) -> Stack:
        names = {"weight_ih": "weight_ih", "weight_hh": "weight_yh", "weight_hr": "weight_hy"}
        names |= {"bias_ih": "bias_h", "bias_hr": "bias_y"} if self.bias else {}
        spec = spec_of("rnn", self.nonlinearity, "sigmoid", None, True, True, False, self.output_activation)
        return Stack(self._params, [names], 1, spec.compiled)

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        run, shape, batched = self._kept()
        if dy is not None:
            dy = read_doutput(dy, shape, batched, self.batch_first, self.dtype)
        dy_n = self._unpack("dstate_n", dstate_n, shape[1], batched)
        self._cache = None
        dx, dy0 = run.backward(dy, dy_n, self._grads)
        dx = as_given(dx, batched, self.batch_first) if run.D else None
        return dx, dy0[None] if batched else dy0

    def generate(self, state: Array | None, steps: int) -> Array:
        """What the network goes on to put out without input, fed its own output: y (T, N, M), laid out as in a call."""
        return self(None, state, steps=steps)[0]

    # --- what is given ------------------------------------------------------------------------------------------------

    def _unpack(self, name: str, state: Array | None, N: int, batched: bool) -> Array | None:
        if state is None:
            return None
        check_state(name, state, (1, N, self.output_size) if batched else (1, self.output_size), self.dtype)
        return state[0] if batched else state

    def _check_targets(self, targets: Array, T: int, N: int, batched: bool) -> Array:
        y = time_major("targets", targets, self.dtype, self.batch_first, self.output_size)
        if y.shape[:2] != (T, N) or (targets.ndim == 3) != batched:
            raise ValueError(f"targets: expected as many steps and rows as x, {T} and {N}, got shape {targets.shape}")
        return y
