"""generate: a model that is fed what it has put out, token by token or vector by vector.

Letters: N batch, T time steps, D features, M outputs, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import as_generator, check_choice, check_number, check_size
from .decode import check_no_nan, greedy, sample
from .stream import CompiledStream, Stream

Array = NDArray[Any]

MODES = ("greedy", "sample", "feedback")


def generate(
    model: Any,
    start: Any,
    steps: int,
    state: Any = None,
    *,
    mode: str = "greedy",
    temperature: float = 1.0,
    top_k: int | None = None,
    rng: int | np.random.Generator | None = None,
    end: int | None = None,
    return_state: bool = False,
) -> Any:
    """Run a model that keeps time and reads it forward for `steps` more steps on its own output.

    start: what it reads first, samples first whatever the model's layout: tokens (N,), or a prompt (N, T) of at least
        one token; with mode="feedback" vectors (N, D) or (N, T, D) in the model's dtype. N = 0 gives empty results.
    state: as `model.forward` takes and returns it; None for zeros.
    mode: what of its output it reads next. "greedy": the token with the largest logit; "sample": one drawn from
        softmax(logits / temperature) over the top_k largest logits (None for all), from `rng`, a seed or a Generator;
        "feedback": the output itself, for models whose outputs are inputs (M = D).
    end: a token after which a sequence has ended and is filled up with it.

    Returns tokens (N, steps), integers, or outputs (N, steps, M); with return_state=True that and the state with which
    `generate` goes on from the last token or vector: `generate(model, tokens[:, -1], more, state)`.
    Raises TypeError and ValueError that name the argument, FloatingPointError if the model puts out NaN.
    """
    steps, mode = check_size("steps", steps), check_choice("mode", mode, MODES)
    temperature, top_k, rng = check_sampling(temperature, top_k, rng, mode == "sample")
    if end is not None:
        if mode == "feedback":
            raise ValueError(f"end: expected None with mode='feedback', got {end!r}")
        end = check_size("end", end, least=0)
    if not (model.time.in_x and model.time.in_y):
        raise ValueError("model: expected one with an output at every step of its input, got one without")
    x = _samples_first(start, mode)
    if not (N := len(x)):
        return _nothing(model, x, state, steps, mode, return_state)
    stream = model.stream(N)
    stream.state = state
    try:
        y = stream.run(x if model.batch_first else x.swapaxes(0, 1)).take(-1, axis=1 if model.batch_first else 0)
    except (TypeError, ValueError, IndexError) as error:  # it calls x what is start here
        raise type(error)(str(error).replace("x: ", "start: ", 1)) from None
    before: Any = None if rng is None else rng.bit_generator.state
    uniform = None if rng is None else rng.random((steps, N))  # None unless mode is "sample"
    try:
        if not isinstance(stream, CompiledStream):
            made = _step_by_step(stream, y, steps, mode, uniform, temperature, top_k, end)
        elif mode == "feedback":
            made = stream.feed_back(y, steps)
            check_no_nan(made.swapaxes(0, 1).reshape(N, -1))
        else:
            made = stream.generate(y, steps, uniform, temperature, top_k or 0, -1 if end is None else end)
    except BaseException:  # Ctrl-C: nothing was drawn
        if rng is not None:
            rng.bit_generator.state = before
        raise
    made = np.ascontiguousarray(made.swapaxes(0, 1))
    return (made, stream.state) if return_state else made


def _nothing(model: Any, x: Array, state: Any, steps: int, mode: str, return_state: bool) -> Any:
    """What comes of no sequences at all. A stream has a row at least, so the model itself reads the prompt."""
    for layer in model.flatten():
        layer.check_streams()
    try:
        y, state_n = model.run(x if model.batch_first else x.swapaxes(0, 1), state)
    except (TypeError, ValueError, IndexError) as error:
        raise type(error)(str(error).replace("x: ", "start: ", 1)) from None
    if mode != "feedback":
        made = np.zeros((0, steps), np.intp)
    elif y.shape[-1] == x.shape[-1]:
        made = np.zeros((0, steps, y.shape[-1]), y.dtype)
    else:
        raise ValueError(f"layers: expected outputs as wide as inputs, {x.shape[-1]}, got {y.shape[-1]}")
    return (made, state_n) if return_state else made


def _step_by_step(
    stream: Stream,
    y: Array,
    steps: int,
    mode: str,
    uniform: Array | None,
    temperature: float,
    top_k: int | None,
    end: int | None,
) -> Array:
    """What the chain of a `CompiledStream` does, for models with layers that have no compiled form: (steps, N, ...)."""
    made: list[Array] = []
    for t in range(steps):
        y = stream.step(made[-1]) if t else y
        if mode == "feedback":
            check_no_nan(y)
            made.append(y)
            continue
        tokens = greedy(y) if uniform is None else sample(y, uniform[t], temperature, top_k)
        if end is not None:
            tokens = np.where(made[-1] == end, end, tokens) if t else tokens
            if (tokens == end).all():
                return np.stack([*made, *[tokens] * (steps - t)])
        made.append(tokens)
    return np.stack(made)


class OneStep:
    """A model one time step at a time from any state: inputs (R,) or (R, D), state -> y (R, M), state."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._streams: dict[int, Stream] = {}

    def __call__(self, inputs: Array, state: Any) -> tuple[Array, Any]:
        if len(inputs) not in self._streams:
            self._streams[len(inputs)] = self.model.stream(len(inputs))
        stream = self._streams[len(inputs)]
        stream.state = state
        return stream.step(inputs), stream.state


def check_sampling(
    temperature: Any, top_k: Any, rng: Any, samples: bool
) -> tuple[float, int | None, np.random.Generator | None]:
    if check_number("temperature", temperature) < 0:
        raise ValueError(f"temperature: expected a finite number of at least 0, got {temperature!r}")
    top_k = None if top_k is None else check_size("top_k", top_k)
    return float(temperature), top_k, as_generator("rng", rng) if samples else None


def _samples_first(start: Any, mode: str) -> Array:
    """(N, T) tokens or (N, T, D) vectors."""
    x = np.asarray(start)
    if mode == "feedback":
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"start: expected vectors in float32 or float64, got {x.dtype}")
        name, axes = "(N, D) or (N, T, D)", (2, 3)
    else:
        if x.dtype.kind not in "iu":
            raise TypeError(f"start: expected integer tokens, got {x.dtype}")
        name, axes = "(N,) or (N, T)", (1, 2)
    if x.ndim not in axes or 0 in x.shape[1:]:
        raise ValueError(f"start: expected shape {name}, with nothing empty but N, got {x.shape}")
    return x if x.ndim == axes[1] else x[:, None]
