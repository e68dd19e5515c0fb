"""How a Jordan layer runs: fed with its own output, with targets, or with either.

Letters: T time steps, N batch, D input_size, H hidden_size, M output_size.

Design: a masked step is one that its row passes over: what the next step is fed is what the masked one would have been
fed. With targets all steps run at once, so this is a matter of which target a step is fed (`Sources`), not of a loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import functional
from ..functional.activations import ACTIVATIONS
from .module import Array

if TYPE_CHECKING:
    from .jordan import Jordan


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
        mask: Array | None,
        training: bool,
        feedback: tuple[Array, Array] | None = None,
    ) -> None:
        p, self.D = layer._params, x.shape[2]
        weight_ih = p["weight_ih"][:, : self.D]
        self.forced = feedback is not None
        if not training and not self.forced and self.D and mask is None:
            found = self._from_packed(layer, x, y0, lengths, reset_mask)
            if found:
                return
        if feedback is not None:
            targets, forced = feedback
            if mask is None:
                fed = _shifted(targets, None)
                forced[:1] = False  # step 0 is fed the state
                if reset_mask is not None:
                    forced &= ~reset_mask
            else:
                sources = Sources(mask, lengths, reset_mask)
                forced &= (sources.fed >= 0) & mask  # a reset at a masked step is one of what the row carries
                fed = sources.read(sources.fed, targets, None)
            x = np.concatenate([x, np.where(forced[:, :, None], fed, 0)], axis=2, dtype=x.dtype)
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
            mask=mask,
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
        mask: Array | None,
        training: bool,
    ) -> None:
        p, self.D = layer._params, x.shape[2]
        (T, N, _), self.f, self.g = x.shape, layer.nonlinearity, layer.output_activation
        self.valid = None if lengths is None else (np.arange(T)[:, None] < lengths)[:, :, None]
        self.sources = None if mask is None else Sources(mask, lengths, reset_mask)
        if self.sources is not None:
            fed, self.valid = self.sources.read(self.sources.fed, targets, y0), self.sources.real[:, :, None]
        else:
            fed = _shifted(targets, y0)
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
        if self.sources is not None:
            self.y = self.sources.carry(self.y, y0)
            self.y_n = self.sources.read(self.sources.last[None], targets, y0)[0]
            return
        last = np.full(N, T) if lengths is None else lengths
        self.stayed = last == 0  # rows that end with the state they began with
        y_n = np.zeros((N, layer.output_size), x.dtype) if y0 is None else y0
        self.y_n = np.where(self.stayed[:, None], y_n, targets[last - 1, np.arange(N)] if T else 0)

    def backward(self, dy: Array | None, dy_n: Array | None, grads: dict[str, Array]) -> tuple[Array, Array]:
        D, shape = self.D, self.y.shape
        dy = np.zeros(shape, self.y.dtype) if dy is None else dy
        dy0 = np.zeros(shape[1:], self.y.dtype)
        if self.sources is not None:
            dy = self.sources.carry_back(dy, dy0)
        if self.valid is not None:
            dy = np.where(self.valid, dy, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            head: dict[str, Any] = functional.linear_backward(ACTIVATIONS[self.g][1](dy, self.y), self.head)
            found: dict[str, Any] = functional.linear_backward(ACTIVATIONS[self.f][1](head["x"], self.h), self.linear)
        grads["weight_ih"][:, :D] += found["weight"][:, :D]
        grads["weight_yh"] += found["weight"][:, D:]
        grads["weight_hy"] += head["weight"]
        if "bias_h" in grads:
            grads["bias_h"] += found["bias"]
            grads["bias_y"] += head["bias"]
        if self.sources is not None:
            self.sources.read_back(found["x"][:, :, D:], dy_n, dy0)
            return found["x"][:, :, :D], dy0
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


STATE, ZEROS = -1, -2  # in place of a step: the state that the row began with; zeros, after a reset


class Sources:
    """Where masked steps let the fed values and outputs of (T, N) come from: for each the real step, STATE or ZEROS.

    fed: what a step is fed, the target of that one. output: which one's output stands there. last (N,): what the step
    after the last would be fed. real: which steps are.
    """

    def __init__(self, mask: Array, lengths: Array | None, reset_mask: Array | None) -> None:
        T, N = mask.shape
        steps = np.arange(T)[:, None]
        self.within = np.ones((T, N), bool) if lengths is None else steps < lengths
        self.real = mask & self.within
        before, self.fed, self.output = np.full(N, STATE), np.empty((T, N), np.intp), np.empty((T, N), np.intp)
        for t in range(T):
            if reset_mask is not None:
                before = np.where(reset_mask[t] & self.within[t], ZEROS, before)
            self.fed[t] = before
            self.output[t] = before = np.where(self.real[t], t, before)
        self.last = before

    def read(self, sources: Array, targets: Array, y0: Array | None) -> Array:
        """(K, N, M), the targets of these steps (K, N)."""
        found: Array = targets[np.maximum(sources, 0), np.arange(targets.shape[1])]
        found[sources == ZEROS] = 0
        k, n = np.nonzero(sources == STATE)
        found[k, n] = 0 if y0 is None else y0[n]
        return found

    def read_back(self, dfed: Array, dy_n: Array | None, dy0: Array) -> None:
        """Add to dy0 what of the gradients of the fed values and of y_n is that of the state."""
        dy0 += np.where((self.real & (self.fed == STATE))[:, :, None], dfed, 0).sum(axis=0)
        if dy_n is not None:
            rows = self.last == STATE
            dy0[rows] += dy_n[rows]

    def carry(self, y: Array, y0: Array | None) -> Array:
        """Outputs, those of masked steps carried; 0 past the lengths."""
        return np.where(self.within[:, :, None], self.read(self.output, y, y0), y.dtype.type(0))

    def carry_back(self, dy: Array, dy0: Array) -> Array:
        """The gradient of the outputs that were carried, where they came from; what is the state's is added to dy0."""
        found = np.where(self.real[:, :, None], dy, dy.dtype.type(0))
        t, n = np.nonzero(~self.real & self.within & (self.output >= 0))
        np.add.at(found, (self.output[t, n], n), dy[t, n])
        t, n = np.nonzero(self.within & (self.output == STATE))
        np.add.at(dy0, n, dy[t, n])
        return found
