"""A layer's trace: equal to its outputs and to what each gate is, gradients equal to finite differences.

Letters: N batch, T time steps, D features, H hidden size.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_output_close, every_dtype

import fastrnn
from fastrnn import GRU, LSTM, RNN

RNG = np.random.default_rng(0)
N, T, D, H = 3, 5, 2, 4

LAYERS = {
    "rnn": lambda **k: RNN(D, H, **k),
    "relu": lambda **k: RNN(D, H, 2, nonlinearity="relu", bias=False, **k),
    "gru": lambda **k: GRU(D, H, 2, **k),
    "gru before": lambda **k: GRU(D, H, 2, reset_after=False, gate_activation="hard_sigmoid", **k),
    "gru both": lambda **k: GRU(D, H, 2, bidirectional=True, **k),
    "gru merged": lambda **k: GRU(D, H, 2, bidirectional=True, merge="mul", **k),
    "lstm": lambda **k: LSTM(D, H, 2, **k),
    "lstm all": lambda **k: LSTM(D, H, 2, bidirectional=True, proj_size=3, peephole=True, cell_clip=0.9, **k),
    "learned": lambda **k: LSTM(D, H, 2, learn_initial_state=True, **k),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def make(name, **options):
    layer = LAYERS[name](rng=1, **options)
    for key, value in layer.params.items():
        if key.startswith("initial"):
            value[...] = RNG.standard_normal(value.shape)
    return layer


def arguments(layer, with_lengths):
    dtype = layer.dtype
    x = RNG.standard_normal((N, T, D) if layer.batch_first else (T, N, D)).astype(dtype)
    state = fastrnn._state.map(lambda a: RNG.standard_normal(a.shape).astype(dtype), layer(x)[1])
    over_time = {}
    if with_lengths:
        over_time = {"lengths": np.array([3, 5, 0]), "reset_mask": RNG.random((T, N)) < 0.3}
    return x, state, over_time


@every_layer
@every_dtype
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_a_trace_is_what_the_layer_does(name, dtype, batch_first, with_lengths):
    layer = make(name, dtype=dtype, batch_first=batch_first)
    x, state, over_time = arguments(layer, with_lengths)
    for start in (None, state):
        output, state_n = layer(x, start, **over_time)
        trace = layer.trace(x, start, **over_time)
        assert_output_close(trace.output, output.astype(float), dtype)
        for a, b in zip(*map(fastrnn._state.flatten, (trace.state_n, state_n))):
            assert_output_close(a, b.astype(float), dtype)
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    assert list(trace) == [f"l{k}{s}" for k in range(layer.num_layers) for s in directions]
    assert all(a.shape[:2] == x.shape[:2] and a.dtype == dtype for part in trace.values() for a in part.values())
    one = layer.trace(x[0] if batch_first else x[:, 0])
    whole = layer.trace(x)["l0"]["h"]
    np.testing.assert_allclose(one["l0"]["h"], whole[0] if batch_first else whole[:, 0], rtol=1e-5, atol=1e-6)


def test_the_gates_are_those_of_the_equations():
    x = RNG.standard_normal((T, N, D))
    layer = LSTM(D, H, dtype="float64", rng=1)
    at = layer.trace(x)["l0"]
    assert list(at) == ["i", "f", "g", "o", "h", "c"]
    np.testing.assert_allclose(at["h"], at["o"] * np.tanh(at["c"]), rtol=1e-12)
    np.testing.assert_allclose(at["c"][1:], at["f"][1:] * at["c"][:-1] + at["i"][1:] * at["g"][1:], rtol=1e-12)
    a = x[2] @ layer.params["weight_ih_l0"].T + at["h"][1] @ layer.params["weight_hh_l0"].T
    a += layer.params["bias_ih_l0"] + layer.params["bias_hh_l0"]
    for k, gate in enumerate("ifgo"):
        expected = np.tanh(a[:, k * H : (k + 1) * H]) if gate == "g" else 1 / (1 + np.exp(-a[:, k * H : (k + 1) * H]))
        np.testing.assert_allclose(at[gate][2], expected, rtol=1e-12)
    at = GRU(D, H, dtype="float64", rng=1).trace(x)["l0"]
    assert list(at) == ["r", "z", "n", "h"]
    before = np.concatenate([np.zeros((1, N, H)), at["h"][:-1]])
    np.testing.assert_allclose(at["h"], (1 - at["z"]) * at["n"] + at["z"] * before, rtol=1e-12)
    assert list(RNN(D, H, rng=1).trace(x)["l0"]) == ["h"]


@pytest.mark.parametrize("name", ["rnn", "relu", "gru", "gru before", "lstm", "learned"])  # those of one direction
@pytest.mark.parametrize("with_lengths", [False, True])
def test_gradients_of_the_state_between_two_steps_agree_with_finite_differences(name, with_lengths):
    layer = make(name, dtype="float64")
    x, state, over_time = arguments(layer, with_lengths)
    lengths = over_time.get("lengths", np.full(N, T))
    mask = over_time.get("reset_mask", np.zeros((T, N), bool))
    output, state_n = layer(x, state, **over_time)
    dy = RNG.standard_normal(output.shape)
    dstate_n = fastrnn._state.map(lambda a: RNG.standard_normal(a.shape), state_n)
    trace = layer.trace(x, state, **over_time, doutput=dy, dstate_n=dstate_n)

    def rest(before, t):
        """The loss of what comes after step t."""
        y, last = layer(x[t:], before, lengths=(lengths - t).clip(0), reset_mask=mask[t:])
        pairs = zip(fastrnn._state.flatten(last), fastrnn._state.flatten(dstate_n))
        return (y * dy[t:]).sum() + sum((a * b).sum() for a, b in pairs)

    top = f"l{layer.num_layers - 1}"
    for t in range(1, T):
        between = layer(x[:t], state, lengths=lengths.clip(0, t), reset_mask=mask[:t])[1]
        for part, name_of_part in enumerate(layer.states):
            found = np.stack([trace[f"l{k}"][f"d{name_of_part}"][t - 1] for k in range(layer.num_layers)])
            if name_of_part == "h":  # the output's own part of the top level's h belongs to step t - 1
                found[-1] -= dy[t - 1] * (lengths >= t)[:, None]
            arrays = fastrnn._state.flatten(between)
            for k, n in np.ndindex(layer.num_layers, N):
                if lengths[n] < t:
                    assert not trace[f"l{k}"][f"d{name_of_part}"][t - 1, n].any()
                    continue
                for unit in range(arrays[part].shape[2]):
                    values = []
                    for sign in (1, -1):
                        moved = [a.copy() for a in arrays]
                        moved[part][k, n, unit] += sign * 1e-6
                        values.append(rest(fastrnn._state.unflatten(between, moved), t))
                    numeric = (values[0] - values[1]) / 2e-6
                    if k + 1 < layer.num_layers and name_of_part == "h":  # what went up at step t - 1 is not in `rest`
                        continue
                    assert found[k, n, unit] == pytest.approx(numeric, rel=1e-5, abs=1e-7)
    assert top in trace


@every_layer
def test_gradients_of_h_agree_with_moving_it_from_above(name):
    """dL/dh of a level is what a bias added to the level's output would get: the gradient in x of the level above."""
    layer = make(name, dtype="float64")
    x, state, over_time = arguments(layer, True)
    output, state_n = layer(x, state, training=True, **over_time)
    dy = RNG.standard_normal(output.shape)
    dstate_n = fastrnn._state.map(lambda a: RNG.standard_normal(a.shape), state_n)
    trace = layer.trace(x, state, **over_time).backward(dy, dstate_n)
    again = layer.trace(x, state, **over_time, doutput=dy, dstate_n=dstate_n)
    for where in trace:
        for key in trace[where]:
            assert np.array_equal(trace[where][key], again[where][key])
    before = {key: grad.copy() for key, grad in layer.grads.items()}
    layer.backward(dy, dstate_n)
    # The bias of the cell adds to each gate what its gradient sums up: with dh of all steps dbias follows.
    if layer.spec.cell == "rnn" and layer.nonlinearity == "tanh":
        at = trace["l0"]
        da = at["dh"] * (1 - at["h"] ** 2)
        np.testing.assert_allclose(layer.grads["bias_ih_l0"], da.sum(axis=(0, 1)), rtol=1e-10)
    if layer.spec.cell == "gru" and layer.reset_after:
        for where, at in trace.items():
            da_n = at["dh"] * (1 - at["z"]) * (1 - at["n"] ** 2)
            np.testing.assert_allclose(
                layer.grads[f"bias_ih_{where}"][2 * H :], da_n.sum(axis=(0, 1)), rtol=1e-9, atol=1e-12
            )
    if layer.spec.cell == "lstm" and not layer.peephole:
        for where, at in trace.items():
            da_o = at["dh"] * np.tanh(at["c"]) * at["o"] * (1 - at["o"])
            np.testing.assert_allclose(
                layer.grads[f"bias_ih_{where}"][3 * H :], da_o.sum(axis=(0, 1)), rtol=1e-9, atol=1e-12
            )
    assert not any(grad.any() for grad in before.values())


def test_errors_and_words_of_a_trace():
    layer = GRU(D, H, 2, bidirectional=True, rng=1)
    x = RNG.standard_normal((T, N, D)).astype(np.float32)
    assert "l1_reverse: r (5, 3, 4), z (5, 3, 4), n (5, 3, 4), h (5, 3, 4)" in repr(layer.trace(x))
    with pytest.raises(ValueError, match=r"doutput: expected shape \(T, N, 8\)"):
        layer.trace(x, doutput=np.zeros((T, N, H), np.float32))
    with pytest.raises(ValueError, match="x: expected shape"):
        layer.trace(x[..., :1])
    with pytest.raises(ValueError, match="lengths: expected shape"):
        layer.trace(x, lengths=[1])


def test_caches_say_whose_they_are():
    weights = np.zeros((4 * H, D)), np.zeros((4 * H, H)), None, None
    x = np.zeros((T, N, D))
    for module, words in ((fastrnn.functional, ": T=5, N=3, H=4"), (fastrnn.reference, "")):
        *_, cache = module.lstm_forward(x, None, None, *weights)
        assert repr(cache) == f"<cache of lstm_forward{words}>"
        module.lstm_backward(np.zeros((T, N, H)), None, None, cache)
        assert repr(cache) == f"<cache of lstm_forward{words}, used up>"
    layer, trees = fastrnn.TreeRNN(D, H, rng=0), fastrnn.Trees([[-1, 0, 0]])
    layer(np.zeros((3, D), np.float32), trees, training=True)
    assert repr(layer._cache) == "<cache of tree_forward: 3 nodes of 1 trees, H=4>"


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("make", [GRU, LSTM])
def test_masks_and_zoneout_in_a_trace(make, both):
    layer = make(D, H, 2, zoneout=0.3, recurrent_dropout=0.5, bidirectional=both, dtype="float64", rng=1)
    x, real = RNG.standard_normal((T, N, D)), RNG.random((T, N)) < 0.6
    output, _ = layer(x, mask=real)
    trace = layer.trace(x, mask=real)
    np.testing.assert_allclose(trace.output, output, rtol=1e-12, atol=1e-14)
    plain = make(D, H, dtype="float64", bidirectional=both, rng=1)
    output, _ = plain(x, mask=real, training=True)
    dy = RNG.standard_normal(output.shape)
    at = plain.trace(x, mask=real, doutput=dy)
    plain.backward(dy, None)
    for where, part in at.items():
        if make is GRU:
            da = part["dh"] * (1 - part["z"]) * (1 - part["n"] ** 2) * real[:, :, None]
        else:
            da = part["dh"] * np.tanh(part["c"]) * part["o"] * (1 - part["o"])  # o is 0 where nothing moves
        bias = plain.grads[f"bias_ih_{where}"][-H:]
        np.testing.assert_allclose(bias, da.sum(axis=(0, 1)), rtol=1e-9, atol=1e-12)
