"""generate: a model that is fed what it has put out, token by token or vector by vector.

Letters: N batch, T time steps, D features, M outputs, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import as_generator, check_choice, check_size
from .decoding import greedy, sample
from .module import Array, Module

MODES = ("greedy", "sample", "feedback")


def generate(
    model: Module, start: Any, steps: int, state: Any = None, *, mode: str = "greedy", temperature: float = 1.0,
    top_k: int | None = None, rng: int | np.random.Generator | None = None, end: int | None = None,
    return_state: bool = False,
) -> Any:  # fmt: skip
    """Run a model that keeps time and reads it forward for `steps` more steps on its own output.

    start: what it reads first, samples first whatever the model's layout: tokens (N,), or a prompt (N, T) of at least
        one token; with mode="feedback" vectors (N, D) or (N, T, D) in the model's dtype.
    state: as `model.run` takes and returns it; None for zeros.
    mode: what of its output it reads next. "greedy": the token with the largest logit; "sample": one drawn from
        softmax(logits / temperature) over the top_k largest logits (None for all), from `rng`, a seed or a Generator;
        "feedback": the output itself, for models whose outputs are inputs (M = D).
    end: a token after which a sequence has ended and is filled up with it.

    Returns tokens (N, steps), integers, or outputs (N, steps, M); with return_state=True that and the state with which
    `generate` goes on from the last token or vector: `generate(model, tokens[:, -1], more, state)`.
    Raises TypeError and ValueError that name the argument.
    """
    steps, mode = check_size("steps", steps), check_choice("mode", mode, MODES)
    temperature, top_k, rng = check_sampling(temperature, top_k, rng, mode == "sample")
    if end is not None and mode == "feedback":
        raise ValueError(f"end: expected None with mode='feedback', came {end!r}")
    if not model.keeps_time or not model.reads_time:
        raise ValueError("model: expected one with an output at every step of its input, came one without")
    x = _samples_first(start, mode)
    run = OneStep(model)
    y, state = run.prompt(x, state)
    N, made, running = len(x), [], np.ones(len(x), bool)
    for t in range(steps):
        if t:
            y, state = run(made[-1], state)
        if mode == "feedback":
            made.append(y)
            continue
        tokens = greedy(y) if mode == "greedy" else sample(y, rng, temperature, top_k)
        if end is not None:
            tokens = np.where(running, tokens, end)
            running &= tokens != end
        made.append(tokens)
        if not running.any():
            made += [np.full(N, end, np.intp)] * (steps - t - 1)
            break
    result = np.stack(made, axis=1)
    return (result, state) if return_state else result


class OneStep:
    """A model one time step at a time, without the time axis: inputs (N,) or (N, D), state -> y (N, M), state."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.axis = 1 if model.batch_first else 0

    def __call__(self, inputs: Array, state: Any) -> tuple[Array, Any]:
        y, state = self.model.run(np.expand_dims(inputs, self.axis), state)
        return y.take(0, axis=self.axis), state

    def prompt(self, x: Array, state: Any) -> tuple[Array, Any]:
        """The last output of a whole input, samples first."""
        y, state = self.model.run(x if self.axis else x.swapaxes(0, 1), state)
        return y.take(-1, axis=self.axis), state


def check_sampling(
    temperature: Any, top_k: Any, rng: Any, samples: bool
) -> tuple[float, int | None, np.random.Generator | None]:
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float, np.number)):
        raise TypeError(f"temperature: expected a number, came {temperature!r}")
    if not 0 <= temperature < np.inf:
        raise ValueError(f"temperature: expected a finite number of at least 0, came {temperature!r}")
    top_k = None if top_k is None else check_size("top_k", top_k)
    return float(temperature), top_k, as_generator("rng", rng) if samples else None


def _samples_first(start: Any, mode: str) -> Array:
    """(N, T) tokens or (N, T, D) vectors."""
    x = np.asarray(start)
    if mode == "feedback":
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"start: expected vectors in float32 or float64, came {x.dtype}")
        name, axes = "(N, D) or (N, T, D)", (2, 3)
    else:
        if x.dtype.kind not in "iu":
            raise TypeError(f"start: expected integer tokens, came {x.dtype}")
        name, axes = "(N,) or (N, T)", (1, 2)
    if x.ndim not in axes or not x.size:
        raise ValueError(f"start: expected shape {name}, nothing empty, came {x.shape}")
    return x if x.ndim == axes[1] else x[:, None]
