"""RNN, GRU and LSTM layers: against PyTorch, finite differences and the reference; states, layouts, dropout, threads.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates, L layers, S directions.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype
from layer_cases import (
    LAYERS,
    D,
    H,
    N,
    T,
    assert_close,
    every_form,
    every_layer,
    joined,
    parts,
    random_arguments,
    run,
    run_torch,
    torch_twin,
)
from test_reference import assert_gradients_match_differences

from fastrnn import reference
from fastrnn.layers import GRU, LSTM, RNN


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@every_form
@pytest.mark.parametrize("kind", ["rnn", "relu", "gru", "lstm"])
@every_dtype
def test_agrees_with_torch(dtype, kind, form, batched):
    """Outputs, final states and every gradient, from weights that load_state_dict takes over by PyTorch's own names."""
    torch = pytest.importorskip("torch")
    if kind == "relu":
        layer = RNN(D, H, nonlinearity="relu", dtype=dtype, **form)
    else:
        layer = LAYERS[kind](D, H, dtype=dtype, **form)
    module = torch_twin(torch, layer, getattr(torch, dtype))
    layer.load_state_dict({name: value.numpy() for name, value in module.state_dict().items()})
    assert list(layer.params) == list(module.state_dict())
    arguments = random_arguments(layer, batched=batched)
    expected = run_torch(torch, module.double(), layer, *arguments)
    assert_close(run(layer, *arguments), expected, dtype)


# --- Finite differences, for what PyTorch has not and for double precision --------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        GRU(2, 3, 2, reset_after=False, bidirectional=True, dtype=np.float64, rng=1),
        RNN(2, 3, 2, nonlinearity="sigmoid", batch_first=True, dtype=np.float64, rng=2),
        RNN(2, 3, nonlinearity="identity", bidirectional=True, dtype=np.float64, rng=3),
        LSTM(2, 3, 3, dropout=0.4, dtype=np.float64, rng=4),
        GRU(2, 3, 2, dropout=0.4, bidirectional=True, batch_first=True, dtype=np.float64, rng=5),
    ],
    ids=repr,
)
def test_gradients_match_differences(layer):
    rng = np.random.default_rng(8)
    S = 2 if layer.bidirectional else 1
    inputs = {"x": rng.standard_normal((4, 2, 2))} | {name: param.copy() for name, param in layer.params.items()}
    batch = 4 if layer.batch_first else 2
    rows = (layer.num_layers * S, batch, 3)
    inputs |= {s + "0": rng.standard_normal(rows) for s in layer.states}
    doutput = rng.standard_normal((4, 2, 3 * S))
    dstate = [rng.standard_normal(rows) for _ in layer.states]
    draws = {name: generator.bit_generator.state for name, generator in layer.generators()}
    assert bool(draws) == bool(layer.dropout)

    def forward(inputs):
        for name, generator in layer.generators():
            generator.bit_generator.state = draws[name]  # the same units dropped every time
        layer.load_state_dict({name: inputs[name] for name in layer.params})
        return layer(inputs["x"], joined(inputs[s + "0"] for s in layer.states), training=True)

    def loss(inputs):
        output, state_n = forward(inputs)
        return (output * doutput).sum() + sum((s * d).sum() for s, d in zip(parts(state_n), dstate))

    layer.zero_grad()
    forward(inputs)
    dx, dstate0 = layer.backward(doutput, joined(dstate))
    grads = {"x": dx} | {name: grad.copy() for name, grad in layer.grads.items()}
    grads |= {s + "0": d for s, d in zip(layer.states, parts(dstate0))}
    assert_gradients_match_differences(loss, inputs, grads)


# --- What a layer is made of ------------------------------------------------------------------------------------------


@every_layer
def test_bidirectional_is_two_directions_side_by_side(kind):
    layer = LAYERS[kind](D, H, bidirectional=True, dtype=np.float64, rng=1)
    x, state, *_ = random_arguments(layer)
    output, state_n = layer(x, state)
    forward = getattr(reference, kind + "_forward")
    for s, (view, suffix) in enumerate([(x, ""), (x[::-1], "_reverse")]):
        weights = [layer.params[name + "_l0" + suffix] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        y, *last, _ = forward(view, *(a[s] for a in parts(state)), *weights)
        assert_output_close(output[:, :, s * H :][:, :, :H], y[::-1] if s else y, "float64")
        for a, expected in zip(parts(state_n), last):
            assert_output_close(a[s], expected, "float64")


@every_layer
def test_unbatched_is_a_batch_of_one(kind):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, rng=1)
    x, state, doutput, dstate = random_arguments(layer, batched=False)
    alone = run(layer, x, state, doutput, dstate)
    batch = run(
        layer,
        x[:, None],
        joined(a[:, None] for a in parts(state)),
        doutput[:, None],
        joined(a[:, None] for a in parts(dstate)),
    )
    for name, value in alone.items():
        expected = batch[name]
        if name in ("output", "dx") or (name.endswith(("_n", "0")) and not name.endswith("_l0")):
            expected = expected.squeeze(1)
        np.testing.assert_array_equal(value, expected, err_msg=name)


@every_layer
def test_batch_first_swaps_the_axes_of_sequences_only(kind):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, rng=1)
    x, state, doutput, dstate = random_arguments(layer)
    swapped = LAYERS[kind](D, H, 2, bidirectional=True, batch_first=True)
    swapped.load_state_dict(layer.state_dict())
    expected = run(layer, x, state, doutput, dstate)
    actual = run(swapped, x.swapaxes(0, 1).copy(), state, doutput.swapaxes(0, 1).copy(), dstate)
    for name in ("output", "dx"):
        actual[name] = actual[name].swapaxes(0, 1)
    assert_close(actual, expected, "float32")


@every_layer
def test_strided_input(kind):
    layer = LAYERS[kind](D, H, bidirectional=True, rng=1)
    x, state, doutput, dstate = random_arguments(layer)
    expected = run(layer, x, state, doutput, dstate)
    wide = np.zeros((2 * T, N, 2 * D), np.float32)
    wide[::2, :, ::2] = x
    actual = run(layer, wide[::2, :, ::2], state, np.asfortranarray(doutput), dstate)
    assert_close(actual, expected, "float32")


@every_layer
def test_none_is_zeros(kind):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, rng=1)
    x, state, doutput, dstate = random_arguments(layer)
    zero_state, zero_dstate = (joined(np.zeros_like(a) for a in parts(s)) for s in (state, dstate))
    for doutput_or_none, dstate_or_none in [(doutput, None), (None, dstate), (None, None)]:
        expected = run(
            layer,
            x,
            zero_state,
            np.zeros_like(doutput) if doutput_or_none is None else doutput,
            zero_dstate if dstate_or_none is None else dstate,
        )
        actual = run(layer, x, None, doutput_or_none, dstate_or_none)
        for name, value in expected.items():
            np.testing.assert_array_equal(actual[name], value, err_msg=name)


@every_layer
def test_no_time_steps_leave_the_state(kind):
    layer = LAYERS[kind](D, H, 2, rng=1)
    _, state, _, dstate = random_arguments(layer)
    layer.zero_grad()
    output, state_n = layer(np.zeros((0, N, D), np.float32), state, training=True)
    dx, dstate0 = layer.backward(np.zeros((0, N, H), np.float32), dstate)
    assert output.shape == (0, N, H) and dx.shape == (0, N, D)
    for actual, expected in zip(parts(state_n) + parts(dstate0), parts(state) + parts(dstate)):
        np.testing.assert_array_equal(actual, expected)
    assert not any(grad.any() for grad in layer.grads.values())


@every_layer
def test_gradients_add_up(kind):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, dtype=np.float64, rng=1)
    arguments = random_arguments(layer)
    once = run(layer, *arguments)
    layer(*arguments[:2], training=True)
    layer.backward(*arguments[2:])
    for name, grad in layer.grads.items():
        assert_gradient_close(grad, 2 * once["d" + name], "float64", name)
    layer.zero_grad()
    assert not any(grad.any() for grad in layer.grads.values())


@every_layer
def test_parameters_are_live(kind):
    layer = LAYERS[kind](D, H, rng=1)
    x, state, *_ = random_arguments(layer)
    before, _ = layer(x, state)
    layer.params["weight_ih_l0"][...] *= -1
    after, _ = layer(-x, state)
    assert not np.array_equal(layer(x, state)[0], before)
    np.testing.assert_array_equal(after, before)


@every_layer
def test_inference_writes_nothing_on_the_layer_and_threads_agree(kind):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, dropout=0.5, rng=1)
    x, state, doutput, dstate = random_arguments(layer)
    inputs = [np.roll(x, k, axis=0) for k in range(8)]
    expected = [layer(each, state) for each in inputs]
    layer(x, state, training=True)
    before = {name: id(value) for name, value in vars(layer).items()}
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(50):
            output, state_n = layer(inputs[k], state)
            same = np.array_equal(output, expected[k][0])
            if not (same and all(map(np.array_equal, parts(state_n), parts(expected[k][1])))):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert {name: id(value) for name, value in vars(layer).items()} == before
    layer.backward(doutput, dstate)  # what the training call kept is still there


# --- Dropout between layers -------------------------------------------------------------------------------------------


def test_dropout_acts_between_layers_in_training_only():
    """Layers that copy their input show the mask: 0 or 1 / (1 - p), once between two layers, nowhere else."""
    p, size = 0.25, 64
    layer = RNN(size, size, 2, nonlinearity="identity", bias=False, dropout=p, rng=0)
    for name, param in layer.params.items():
        param[...] = np.eye(size) if "_ih" in name else 0
    x = np.ones((20, 16, size), np.float32)
    np.testing.assert_array_equal(layer(x)[0], x)
    output, _ = layer(x, training=True)
    np.testing.assert_array_equal(np.unique(output), np.float32([0, 1 / (1 - p)]))
    share = (output == 0).mean()
    assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / output.size)
    again, _ = layer(x, training=True)
    assert abs((again[output == 0] == 0).mean() - p) < 0.05, "masks of two calls are independent"
    dx, _ = layer.backward(x)
    np.testing.assert_array_equal(dx, again)


def test_dropout_leaves_a_single_layer_alone():
    layer, plain = LSTM(D, H, dropout=0.5, rng=0), LSTM(D, H, rng=0)
    x, state, *_ = random_arguments(layer)
    np.testing.assert_array_equal(layer(x, state, training=True)[0], plain(x, state, training=True)[0])


def test_dropout_draws_come_from_the_seed():
    x = np.ones((T, N, D), np.float32)
    a, b, c = (GRU(D, H, 2, dropout=0.5, rng=seed)(x, training=True)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
