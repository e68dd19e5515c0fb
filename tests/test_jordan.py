"""Jordan: against its equations step by step and finite differences, in all three ways of feeding; training; errors.

Letters: T time steps, N batch, D input size, H hidden size, M output size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_output_close, every_dtype

import fastrnn
from fastrnn.functional.activations import ACTIVATIONS
from fastrnn.layers import build

T, N, D, H, M = 6, 4, 3, 7, 2


def normal(*shape: int, dtype: Any = np.float64, seed: int = 3) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def jordan(dtype: Any = "float64", **options: Any) -> fastrnn.Jordan:
    return fastrnn.Jordan(D, H, M, dtype=dtype, rng=0, **options)


def by_the_equations(layer, x, y0, fed):
    """Outputs (T, N, M) when fed(t, y_{t-1}) is what step t reads."""
    p, y, ys = layer.params, y0, []
    f, g = ACTIVATIONS[layer.nonlinearity][0], ACTIVATIONS[layer.output_activation][0]
    for t in range(len(x)):
        a = x[t] @ p["weight_ih"].T + fed(t, y) @ p["weight_yh"].T + p.get("bias_h", 0)
        y = g(f(a) @ p["weight_hy"].T + p.get("bias_y", 0))
        ys.append(y)
    return np.stack(ys)


FORMS = {
    "tanh, identity": {},
    "relu, sigmoid": {"nonlinearity": "relu", "output_activation": "sigmoid"},
    "sigmoid, softmax": {"nonlinearity": "sigmoid", "output_activation": "softmax"},
    "no bias": {"bias": False, "output_activation": "tanh"},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@every_form
@every_dtype
def test_running_freely(dtype, form):
    layer = jordan(dtype, **form)
    x, y0 = normal(T, N, D, dtype=dtype), normal(1, N, M, dtype=dtype)
    expected = by_the_equations(layer, x.astype("f8"), y0[0].astype("f8"), lambda t, y: y)
    output, y_n = layer(x, y0)
    assert_output_close(output, expected, dtype)
    np.testing.assert_array_equal(y_n[0], output[-1])
    targets = normal(T, N, M, dtype=dtype)
    np.testing.assert_array_equal(layer(x, y0, targets=targets, teacher_forcing=0)[0], output)


@every_form
@every_dtype
def test_teacher_forcing(dtype, form):
    layer = jordan(dtype, **form)
    x, y0, targets = (normal(*shape, dtype=dtype) for shape in [(T, N, D), (1, N, M), (T, N, M)])
    expected = by_the_equations(layer, x.astype("f8"), y0[0], lambda t, y: targets[t - 1] if t else y)
    output, y_n = layer(x, y0, targets=targets)
    assert_output_close(output, expected, dtype)
    np.testing.assert_array_equal(y_n[0], targets[-1])


@every_form
def test_scheduled_sampling_draws_for_each_step_and_row(form):
    layer, same = jordan(teacher_forcing=0.5, **form), jordan(teacher_forcing=0.5, **form)
    x, y0, targets = normal(40, 8, D), normal(1, 8, M), normal(40, 8, M)
    forced = same._rng.random((40, 8)) < 0.5
    assert 0.4 < forced.mean() < 0.6
    output, y_n = layer(x, y0, targets=targets)
    expected = by_the_equations(
        layer, x, y0[0], lambda t, y: np.where(forced[t, :, None], targets[t - 1], y) if t else y
    )
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(y_n[0], output[-1])
    assert np.abs(layer(x, y0, targets=targets)[0] - output).max() > 1e-3  # another draw


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("lengths", [None, [4, 0, 6, 1]])
@pytest.mark.parametrize("share", [None, 0.0, 0.4, 1.0])
def test_gradients(share, lengths, resets):
    layer = jordan(output_activation="softmax" if resets else "identity")
    options = {} if share is None else {"targets": normal(T, N, M), "teacher_forcing": share}
    report = fastrnn.check_gradients(
        layer,
        normal(T, N, D),
        normal(1, N, M),
        lengths=None if lengths is None else np.array(lengths),
        reset_mask=np.random.default_rng(1).random((T, N)) < 0.3 if resets else None,
        **options,
    )
    assert list(report.checks) == ["x", "state0", *layer.params]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_layouts(share):
    """Samples first, and one sequence without a batch axis."""
    layer, other = jordan(teacher_forcing=share), jordan(teacher_forcing=share, batch_first=True)
    x, y0, targets, doutput = normal(T, N, D), normal(1, N, M), normal(T, N, M), normal(T, N, M, seed=8)
    output, y_n = layer(x, y0, targets=targets, training=True)
    dx, dy0 = layer.backward(doutput, np.ones_like(y_n))
    first, first_n = other(x.swapaxes(0, 1), y0, targets=targets.swapaxes(0, 1), training=True)
    np.testing.assert_array_equal(first.swapaxes(0, 1), output)
    dfirst, dfirst0 = other.backward(doutput.swapaxes(0, 1), np.ones_like(y_n))
    np.testing.assert_allclose(dfirst.swapaxes(0, 1), dx, rtol=1e-12)
    alone, alone_n = layer(x[:, 1], y0[:, 1], targets=targets[:, 1], training=True)
    np.testing.assert_allclose(alone, output[:, 1], rtol=1e-12, atol=1e-14)
    dalone, dalone0 = layer.backward(doutput[:, 1], np.ones_like(alone_n))
    np.testing.assert_allclose(dalone, dx[:, 1], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(dalone0, dy0[:, 1], rtol=1e-10, atol=1e-13)
    for a, b in ((first_n, y_n), (dfirst0, dy0), (alone_n, y_n[:, 1])):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_lengths_are_each_sequence_by_itself(share):
    x, targets, doutput = normal(T, N, D), normal(T, N, M), normal(T, N, M, seed=8)
    lengths = np.array([4, 0, 6, 2])
    for n, length in enumerate(lengths):
        x[length:, n] = targets[length:, n] = doutput[length:, n] = np.nan
    layer = jordan(teacher_forcing=share)
    y0 = normal(1, N, M)
    output, y_n = layer(x, y0, targets=targets, lengths=lengths, training=True)
    dx, _ = layer.backward(doutput)
    assert all(np.isfinite(grad).all() for grad in layer.grads.values())
    for n, length in enumerate(lengths):
        assert not output[length:, n].any() and not dx[length:, n].any()
        if not length:
            np.testing.assert_array_equal(y_n[:, n], y0[:, n])
        elif share in (0, 1):
            alone, alone_n = layer(x[:length, n], y0[:, n], targets=targets[:length, n])
            np.testing.assert_allclose(output[:length, n], alone, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(y_n[:, n], alone_n, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("share", [None, 0.5, 1.0])
def test_without_input(share):
    """As with inputs of zero, in outputs and gradients; a state and targets are all that it reads."""
    options = {} if share is None else {"targets": normal(T, N, M), "teacher_forcing": share}
    layer, y0 = jordan(), normal(1, N, M)
    draw = layer._rng.bit_generator.state
    output, y_n = layer(None, y0, steps=T, training=True, **options)
    dx, dy0 = layer.backward(np.ones_like(output), np.ones_like(y_n))
    assert dx is None
    grads = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.zero_grad()
    layer._rng.bit_generator.state = draw
    expected, expected_n = layer(np.zeros((T, N, D)), y0, training=True, **options)
    _, dexpected = layer.backward(np.ones_like(output), np.ones_like(y_n))
    for a, b in [(output, expected), (y_n, expected_n), (dy0, dexpected)]:
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-11, atol=1e-13, err_msg=name)
    if share is None:
        np.testing.assert_array_equal(layer.generate(y0, T), output)
        assert layer.generate(None, 3).shape == (3, 1, M)
    assert fastrnn.check_gradients(layer, None, y0, steps=T, **options)


def test_learns_to_go_on_by_itself():
    """A damped wave from its start alone: teacher forcing in training, running freely in evaluation."""
    rng = np.random.default_rng(0)
    phase, steps = rng.uniform(0, 2 * np.pi, (128, 1)), np.arange(25)
    wave = np.stack([np.sin(0.4 * steps + phase), np.cos(0.4 * steps + phase)], axis=2).astype(np.float32)
    start = np.zeros((128, 24, 3), np.float32)
    start[:, 0, :2], start[:, 0, 2] = wave[:, 0], 1
    model = fastrnn.Sequential(fastrnn.Jordan(3, 24, 2, batch_first=True, rng=0))
    trainer = fastrnn.Trainer(model, loss="mse", optimizer=fastrnn.Adam(lr=1e-2))
    trainer.fit(start, wave[:, 1:], epochs=40, batch_size=16, progress=False)
    model[0].teacher_forcing = 0.0
    trainer.optimizer.lr = 2e-3
    trainer.fit(start, wave[:, 1:], epochs=20, batch_size=16, progress=False)
    assert trainer.history["loss"][-1] < 0.01
    assert trainer.evaluate(start, wave[:, 1:])["loss"] < 0.01
    np.testing.assert_allclose(trainer.predict(start), model(start), rtol=1e-5, atol=1e-6)


def test_trainer_feeds_targets_in_training_only():
    seen = []

    class Spy(fastrnn.Jordan):
        def __call__(self, x, state=None, *, targets=None, training=False, **options):
            seen.append((training, targets is not None))
            return super().__call__(x, state, targets=targets, training=training, **options)

    trainer = fastrnn.Trainer(fastrnn.Sequential(Spy(D, H, M, rng=0)), loss="mse")
    x, y = normal(N, T, D, dtype="f4"), normal(N, T, M, dtype="f4")
    trainer.fit(x, y, progress=False)
    trainer.evaluate(x, y)
    trainer.predict(x)
    assert seen == [(True, True), (False, False), (False, False)]


def test_truncated_pieces_are_fed_the_targets():
    """The last target of one piece is the state in which the next begins: one update per piece, as by hand."""
    x, y = normal(N, 6, D), normal(N, 6, M)
    model, twin = fastrnn.Sequential(jordan()), fastrnn.Sequential(jordan())
    trainer = fastrnn.Trainer(model, loss="mse", optimizer=fastrnn.SGD(lr=0.1), tbptt=3)
    trainer.fit(x, y, batch_size=N, shuffle=False, progress=False)
    optimizer, state = fastrnn.SGD(lr=0.1), None
    for t in (0, 3):
        targets = y[:, t : t + 3].swapaxes(0, 1)
        output, state = twin.run(x[:, t : t + 3].swapaxes(0, 1), state, targets=targets, training=True)
        np.testing.assert_array_equal(state[0][0], targets[-1])
        twin.zero_grad()
        twin.run_backward(fastrnn.losses.mse(output, targets)[1])
        optimizer.step(twin.params, twin.grads)
    for name, param in twin.params.items():
        np.testing.assert_allclose(model.params[name], param, rtol=1e-12, atol=1e-14, err_msg=name)


def test_rebuilds():
    layer = jordan(teacher_forcing=0.3, output_activation="tanh")
    twin = build(layer.config())
    twin.load_state_dict(layer.state_dict())
    assert twin.teacher_forcing == 0.3
    x = normal(T, N, D)
    np.testing.assert_array_equal(twin(x)[0], layer(x)[0])


CALLS = {
    "x": (ValueError, r"x: expected shape \(T, N, 3\)", lambda layer: layer(normal(T, N, 4))),
    "dtype": (TypeError, "x: expected real numbers", lambda layer: layer(normal(T, N, D, dtype="c8"))),
    "state": (ValueError, r"state: expected shape \(1, 4, 2\)", lambda layer: layer(normal(T, N, D), normal(N, M))),
    "targets": (ValueError, "targets: ", lambda layer: layer(normal(T, N, D), targets=normal(T - 1, N, M))),
    "share": (ValueError, "teacher_forcing: ", lambda layer: layer(normal(T, N, D), teacher_forcing=1.5)),
    "lengths": (ValueError, "lengths: ", lambda layer: layer(normal(T, N, D), lengths=np.full(N, 9))),
    "mask": (ValueError, "reset_mask: ", lambda layer: layer(normal(T, N, D), reset_mask=np.ones((2, 2), bool))),
    "steps": (ValueError, "steps: expected a number", lambda layer: layer(None, normal(1, N, M))),
    "backward": (RuntimeError, "training=True", lambda layer: layer.backward(normal(T, N, M))),
}


@pytest.mark.parametrize("error, message, call", CALLS.values(), ids=CALLS)
def test_wrong_arguments(error, message, call):
    with pytest.raises(error, match=message):
        call(jordan())


def test_wrong_constructors():
    with pytest.raises(ValueError, match="output_activation: expected one of"):
        jordan(output_activation="linear")
    with pytest.raises(TypeError, match="teacher_forcing: expected a probability"):
        jordan(teacher_forcing="always")
