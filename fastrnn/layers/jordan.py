"""Jordan: a recurrent network that is fed its own output, or in training the target in its place.

Letters: T time steps, N batch, D input_size, H hidden_size, M output_size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional
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
from ..functional.activations import ACTIVATIONS
from ..functional.spec import NONLINEARITIES, OUTPUT_ACTIVATIONS, spec_of
from .init import uniform
from .layout import active_lengths, as_given, read_doutput, time_major
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
                        reset_mask=None, training=False)
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
        targets came, otherwise the last output. lengths (N,), 0..T: outputs past a length are 0. reset_mask (T, N):
        where True that step is fed zeros.

    dx, dstate0 = layer.backward(doutput, dstate_n=None)
        Exact gradients of what was computed: through the own outputs that were fed back, not through targets.

    A `Sequential` that ends with this layer can be trained as one: the trainer gives it the targets in training, and
    evaluates and predicts with the network running freely.
    Raises TypeError and ValueError that name the argument, RuntimeError for a backward without a training call.
    """

    accepts = frozenset({"state", "lengths", "reset_mask", "targets"})
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
        """output, y_n: see the class. It takes no mask."""
        if mask is not None:
            raise ValueError("mask: expected None, as Jordan takes no mask")
        context = Context(lengths, reset_mask, targets, steps, teacher_forcing)
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
        reset_mask = check_reset_mask(reset_mask, T, N)
        if targets is not None:
            targets = self._check_targets(targets, T, N, batched)
        run: FreeRunning | TeacherForced | NoRows
        if not N:
            run = NoRows(self, x)
        elif targets is None or not share:
            run = FreeRunning(self, x, y0, lengths, reset_mask, training)
        elif share == 1:
            run = TeacherForced(self, x, targets, y0, lengths, reset_mask, training)
        else:
            forced = self._rng.random((T, N)) < share
            run = FreeRunning(self, x, y0, lengths, reset_mask, training, (targets, forced))
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


class FreeRunning:
    """Running freely; with feedback, targets and forced (T, N), fed the target where forced is True.

    A target that is fed is an input like any other, and at its step the own output is not fed: the input is
    [x_t, target_{t-1} or 0], its weights [W_ih, W_yh], and the forced steps are resets.
    """

    def __init__(
        self,
        layer: Jordan,
        x: Array,
        y0: Array | None,
        lengths: Array | None,
        reset_mask: Array | None,
        training: bool,
        feedback: tuple[Array, Array] | None = None,
    ) -> None:
        p, self.D = layer._params, x.shape[2]
        weight_ih = p["weight_ih"][:, : self.D]
        self.forced = feedback is not None
        if not training and not self.forced and self.D:
            found = self._from_packed(layer, x, y0, lengths, reset_mask)
            if found:
                return
        if feedback is not None:
            targets, forced = feedback
            forced[:1] = False  # step 0 is fed the state
            if reset_mask is not None:
                forced &= ~reset_mask
            x = np.concatenate([x, np.where(forced[:, :, None], _shifted(targets, None), 0)], axis=2, dtype=x.dtype)
            weight_ih = np.concatenate([weight_ih, p["weight_yh"]], axis=1)
            reset_mask = forced if reset_mask is None else forced | reset_mask
        self.y, self.y_n, self.cache = functional.jordan_forward(
            x,
            y0,
            weight_ih,
            p["weight_yh"],
            p.get("bias_h"),
            p["weight_hy"],
            p.get("bias_y"),
            nonlinearity=layer.nonlinearity,
            output_activation=layer.output_activation,
            lengths=lengths,
            reset_mask=reset_mask,
            training=training,
        )

    def _from_packed(
        self, layer: Jordan, x: Array, y0: Array | None, lengths: Array | None, reset_mask: Array | None
    ) -> bool:
        """Without training, from weights that stay packed; False for what that does not take."""
        stack = layer._stack or layer.open_stack()
        state = None if y0 is None else np.ascontiguousarray(y0)[None]
        found = None if stack is None else stack.run(x, state, lengths, reset_mask, False)
        if found is not None:
            self.y, self.y_n, self.cache = found[0], found[1][0], None
        return found is not None

    def backward(self, dy: Array | None, dy_n: Array | None, grads: dict[str, Array]) -> tuple[Array, Array]:
        if not self.forced and self.D:
            whole: dict[str, Any] = functional.jordan_backward(dy, dy_n, self.cache, into=grads)
            return whole["x"], whole["y0"]
        into = {name: grad for name, grad in grads.items() if name != "weight_ih"}
        found: dict[str, Any] = functional.jordan_backward(dy, dy_n, self.cache, into=into)
        if self.forced:
            grads["weight_ih"][:, : self.D] += found["weight_ih"][:, : self.D]
            grads["weight_yh"] += found["weight_ih"][:, self.D :]
        return found["x"][:, :, : self.D], found["y0"]


class TeacherForced:
    """Teacher forcing: no step needs the one before, so all T * N rows go through two linear maps at once."""

    def __init__(
        self,
        layer: Jordan,
        x: Array,
        targets: Array,
        y0: Array | None,
        lengths: Array | None,
        reset_mask: Array | None,
        training: bool,
    ) -> None:
        p, self.D = layer._params, x.shape[2]
        (T, N, _), self.f, self.g = x.shape, layer.nonlinearity, layer.output_activation
        fed = _shifted(targets, y0)
        self.valid = None if lengths is None else (np.arange(T)[:, None] < lengths)[:, :, None]
        self.first = np.ones(N, bool) if lengths is None else lengths > 0  # rows whose step 0 was fed the state
        if reset_mask is not None:
            fed[reset_mask] = 0
            if T:
                self.first = self.first & ~reset_mask[0]
        inputs = np.concatenate([x, fed], axis=2)
        if self.valid is not None:
            inputs = np.where(self.valid, inputs, 0)  # what lies past the end does not reach the weights' gradients
        weight = np.concatenate([p["weight_ih"][:, : self.D], p["weight_yh"]], axis=1)
        a, self.linear = functional.linear_forward(inputs, weight, p.get("bias_h"), training=training)
        with np.errstate(over="ignore", invalid="ignore"):
            self.h = ACTIVATIONS[self.f][0](a)
            b, self.head = functional.linear_forward(self.h, p["weight_hy"], p.get("bias_y"), training=training)
            self.y = ACTIVATIONS[self.g][0](b)
        if self.valid is not None:
            self.y = np.where(self.valid, self.y, 0)
        last = np.full(N, T) if lengths is None else lengths
        self.stayed = last == 0  # rows that end with the state they began with
        y_n = np.zeros((N, layer.output_size), x.dtype) if y0 is None else y0
        self.y_n = np.where(self.stayed[:, None], y_n, targets[last - 1, np.arange(N)] if T else 0)

    def backward(self, dy: Array | None, dy_n: Array | None, grads: dict[str, Array]) -> tuple[Array, Array]:
        D, shape = self.D, self.y.shape
        dy = np.zeros(shape, self.y.dtype) if dy is None else dy if self.valid is None else np.where(self.valid, dy, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            head: dict[str, Any] = functional.linear_backward(ACTIVATIONS[self.g][1](dy, self.y), self.head)
            found: dict[str, Any] = functional.linear_backward(ACTIVATIONS[self.f][1](head["x"], self.h), self.linear)
        grads["weight_ih"][:, :D] += found["weight"][:, :D]
        grads["weight_yh"] += found["weight"][:, D:]
        grads["weight_hy"] += head["weight"]
        if "bias_h" in grads:
            grads["bias_h"] += found["bias"]
            grads["bias_y"] += head["bias"]
        dy0 = np.zeros(shape[1:], self.y.dtype)
        if len(found["x"]):
            dy0[self.first] = found["x"][0, self.first, D:]
        if dy_n is not None:
            dy0[self.stayed] += dy_n[self.stayed]
        return found["x"][:, :, :D], dy0


class NoRows:
    """A batch of no sequences."""

    def __init__(self, layer: Jordan, x: Array) -> None:
        (T, _, self.D), M = x.shape, layer.output_size
        self.x, self.y, self.y_n = x, np.zeros((T, 0, M), x.dtype), np.zeros((0, M), x.dtype)

    def backward(self, dy: Array | None, dy_n: Array | None, grads: dict[str, Array]) -> tuple[Array, Array]:
        return np.zeros_like(self.x), np.zeros_like(self.y_n)


def _shifted(targets: Array, y0: Array | None) -> Array:
    """What each step is fed: the state, then the targets but for the last. A new array."""
    fed = np.zeros(targets.shape, targets.dtype)
    if len(targets):
        fed[1:] = targets[:-1]
        if y0 is not None:
            fed[0] = y0
    return fed
