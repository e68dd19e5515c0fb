"""RNN, GRU and LSTM layers: against PyTorch, finite differences and the reference; states, layouts, starts, errors.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates, L layers, S directions.
"""

from __future__ import annotations

import copy
import json
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype
from test_reference import assert_gradients_match_differences

from fastrnn import reference
from fastrnn.layers import GRU, LSTM, RNN, build

T, N, D, H = 7, 3, 5, 6

LAYERS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
every_layer = pytest.mark.parametrize("kind", LAYERS)
FORMS = {
    "plain": {},
    "no bias": {"bias": False},
    "stacked": {"num_layers": 3},
    "bidirectional": {"bidirectional": True},
    "stacked bidirectional": {"num_layers": 2, "bidirectional": True},
    "batch first": {"batch_first": True},
    "all of it": {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def parts(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


def joined(arrays: Any) -> Any:
    arrays = tuple(arrays)
    return arrays if len(arrays) > 1 else arrays[0]


def random_arguments(layer: Any, *, batched: bool = True, seed: int = 5, N: int = N) -> tuple[Any, Any, Any, Any]:
    """x, state, doutput and dstate_n for a layer of input_size D and hidden_size H."""
    rng = np.random.default_rng(seed)
    S = 2 if layer.bidirectional else 1
    P = getattr(layer, "proj_size", 0) or H
    lead = ((N, T) if layer.batch_first else (T, N)) if batched else (T,)
    rows = (layer.num_layers * S, N) if batched else (layer.num_layers * S,)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(layer.dtype)

    state, dstate = (joined(normal(*rows, width) for _, width in zip(layer.states, (P, H))) for _ in range(2))
    return normal(*lead, D), state, normal(*lead, S * P), dstate


def run(layer: Any, x: Any, state: Any, doutput: Any, dstate: Any, **keywords: Any) -> dict[str, np.ndarray]:
    """Results and gradients by name, starting from gradients of zero; `keywords` are those of the call."""
    layer.zero_grad()
    output, state_n = layer(x, state, training=True, **keywords)
    dx, dstate0 = layer.backward(doutput, dstate)
    results = {"output": output, "dx": dx} | {"d" + name: grad.copy() for name, grad in layer.grads.items()}
    results |= {f"{s}_n": a for s, a in zip(layer.states, parts(state_n))}
    return results | {f"d{s}0": a for s, a in zip(layer.states, parts(dstate0))}


def assert_close(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: Any) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        check = assert_gradient_close if name.startswith("d") else assert_output_close
        check(actual[name], value, np.dtype(dtype).name, name)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def torch_twin(torch: Any, layer: Any, dtype: Any) -> Any:
    """PyTorch's layer of the same arguments, with other weights."""
    cls = {"RNN": torch.nn.RNN, "GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}[type(layer).__name__]
    names = (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "bidirectional",
        "nonlinearity",
        "proj_size",
    )
    known = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    torch.manual_seed(3)
    return cls(**known, dtype=dtype)


def run_torch(
    torch: Any, module: Any, layer: Any, x: Any, state: Any, doutput: Any, dstate: Any
) -> dict[str, np.ndarray]:
    def leaf(a: np.ndarray) -> Any:
        return torch.tensor(a, dtype=torch.float64, requires_grad=True)

    x, states = leaf(x), [leaf(s) for s in parts(state)]
    output, state_n = module(x, joined(states))
    arrives = [doutput, *parts(dstate)]
    torch.autograd.backward([output, *parts(state_n)], [torch.tensor(a, dtype=torch.float64) for a in arrives])
    results = {"output": output, "dx": x.grad} | {"d" + name: p.grad for name, p in module.named_parameters()}
    results |= {f"{s}_n": a for s, a in zip(layer.states, parts(state_n))}
    results |= {f"d{s}0": a.grad for s, a in zip(layer.states, states)}
    return {name: a.detach().numpy() for name, a in results.items()}


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


# --- Finite differences, for what PyTorch has not and for dropout -----------------------------------------------------


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


# --- How weights start ------------------------------------------------------------------------------------------------


@every_layer
def test_uniform_start(kind):
    layer = LAYERS[kind](40, 64, 2, bidirectional=True, rng=0)
    bound = 64**-0.5
    for name, param in layer.params.items():
        assert 0.85 * bound < np.abs(param).max() <= bound, name
        assert abs(param.mean()) < 5 * bound / np.sqrt(3 * param.size), name
        assert abs(param.var() / (bound**2 / 3) - 1) < 5 / np.sqrt(param.size), name
    drawn = [param.ravel()[:8].tobytes() for param in layer.params.values()]
    assert len(set(drawn)) == len(drawn)


@every_layer
def test_orthogonal_start(kind):
    layer = LAYERS[kind](40, 48, init="orthogonal", dtype=np.float64, rng=0)
    gates = layer.params["weight_hh_l0"].reshape(-1, 48, 48)
    assert len(gates) == layer.gates
    for gate in gates:
        np.testing.assert_allclose(gate @ gate.T, np.eye(48), atol=1e-12)
    assert all(np.abs(a - b).max() > 0.1 for k, a in enumerate(gates) for b in gates[:k])
    assert np.abs(layer.params["weight_ih_l0"]).max() <= 48**-0.5


def test_orthogonal_start_is_uniform_over_orthogonal_matrices():
    """For those, the trace has mean 0 and variance 1; a QR's own signs would make the mean far from 0."""
    traces = [np.trace(RNN(1, 4, init="orthogonal", rng=seed).params["weight_hh_l0"]) for seed in range(2000)]
    assert abs(np.mean(traces)) < 5 / np.sqrt(2000)
    assert abs(np.var(traces) - 1) < 0.15


def test_forget_bias():
    plain, layer = (LSTM(D, H, 2, bidirectional=True, rng=1, forget_bias=value) for value in (None, 1.0))
    forget = slice(H, 2 * H)
    for k in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        total = layer.params["bias_ih" + k] + layer.params["bias_hh" + k]
        np.testing.assert_array_equal(total[forget], np.ones(H))
    for name, param in layer.params.items():
        others = np.ones(len(param), bool)
        others[forget] = not name.startswith("bias")
        np.testing.assert_array_equal(param[others], plain.params[name][others])
    with pytest.raises(ValueError, match="^forget_bias: expected None, as bias is False$"):
        LSTM(D, H, bias=False, forget_bias=1.0)
    with pytest.raises(TypeError, match="^forget_bias: expected a number, got 'open'$"):
        LSTM(D, H, forget_bias="open")


@every_layer
@pytest.mark.parametrize("init", ["uniform", "orthogonal"])
def test_one_seed_one_start(kind, init):
    single, double, same, other, generator, drawn = (
        LAYERS[kind](D, H, 2, init=init, dtype=dtype, rng=rng).params
        for dtype, rng in [
            ("f4", 1),
            ("f8", 1),
            ("f4", 1),
            ("f4", 2),
            ("f4", np.random.default_rng(1)),
            ("f8", np.random.default_rng(1)),
        ]
    )
    for name, param in single.items():
        assert param.dtype == np.float32 and double[name].dtype == np.float64
        np.testing.assert_array_equal(param, double[name].astype(np.float32))
        np.testing.assert_array_equal(param, same[name])
        np.testing.assert_array_equal(generator[name], drawn[name].astype(np.float32))
        assert not np.array_equal(param, other[name])


# --- Descriptions and copies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        RNN(3, 4, 2, nonlinearity="relu", bias=False, dtype=np.float64),
        GRU(3, 4, reset_after=False, batch_first=True, init="orthogonal"),
        LSTM(3, 4, 2, dropout=0.25, bidirectional=True, forget_bias=1.0),
    ],
    ids=repr,
)
def test_config_rebuilds_the_layer(layer):
    config = json.loads(json.dumps(layer.config()))
    again = build(config)
    assert type(again) is type(layer) and again.config() == layer.config()
    for one in (layer, again):
        assert list(one.grads) == list(one.params) == list(layer.params)
        assert all(p.shape == layer.params[n].shape and p.dtype == layer.dtype for n, p in one.params.items())
    same = eval(repr(layer))
    assert same.config() == layer.config()


@every_layer
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_copies_are_whole_and_apart(kind, duplicate):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, rng=1)
    arguments = random_arguments(layer)
    expected = run(layer, *arguments)
    layer(*arguments[:2], training=True)
    other = duplicate(layer)
    with pytest.raises(RuntimeError):
        other.backward(*arguments[2:])  # the call under way stays with the original
    for name, value in run(other, *arguments).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    other.params["weight_hh_l1"][...] = 0
    other.grads["weight_hh_l1"][...] = 0
    assert layer.params["weight_hh_l1"].any() and layer.grads["weight_hh_l1"].any()


def test_state_dict_is_a_copy():
    layer = LSTM(D, H, rng=1)
    saved = layer.state_dict()
    layer.params["bias_ih_l0"][...] = 7
    assert not (saved["bias_ih_l0"] == 7).any()
    layer.load_state_dict(saved)
    np.testing.assert_array_equal(layer.params["bias_ih_l0"], saved["bias_ih_l0"])


# --- Errors -----------------------------------------------------------------------------------------------------------


def test_load_state_dict_is_strict_and_all_or_nothing():
    layer = GRU(D, H, rng=1)
    good = {name: np.full_like(value, 9) for name, value in layer.state_dict().items()}
    before = layer.state_dict()
    without = {name: value for name, value in good.items() if name != "bias_hh_l0"}
    for bad, error, message in [
        (without, ValueError, "mapping: expected the parameters of GRU, got missing bias_hh_l0$"),
        (good | {"extra": good["bias_hh_l0"]}, ValueError, "mapping: .* got unknown extra$"),
        (without | {"other": 1}, ValueError, "mapping: .* got missing bias_hh_l0; unknown other$"),
        (good | {"bias_hh_l0": np.zeros(H, "f4")}, ValueError, r"bias_hh_l0: expected shape \(18,\), got \(6,\)$"),
        (good | {"bias_hh_l0": np.zeros(3 * H, int)}, TypeError, "bias_hh_l0: expected floating point, got int64$"),
    ]:
        with pytest.raises(error, match=message):
            layer.load_state_dict(bad)
        for name, value in layer.params.items():
            np.testing.assert_array_equal(value, before[name])
    layer.load_state_dict({name: value.astype(np.float64) for name, value in good.items()})
    assert all((param == 9).all() and param.dtype == np.float32 for param in layer.params.values())


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((0, H), {}, ValueError, "input_size: expected a whole number of at least 1, got 0"),
        ((D, -2), {}, ValueError, "hidden_size: expected a whole number of at least 1, got -2"),
        ((D, 2.5), {}, TypeError, "hidden_size: expected a whole number, got 2.5"),
        ((D, True), {}, ValueError, "hidden_size: expected a whole number of at least 1, got True"),
        ((D, H, 0), {}, ValueError, "num_layers: expected a whole number of at least 1, got 0"),
        ((D, H), {"dropout": 1.0}, ValueError, "dropout: expected a probability 0 <= p < 1, got 1.0"),
        ((D, H), {"dropout": float("nan")}, ValueError, "dropout: expected a probability 0 <= p < 1, got nan"),
        ((D, H), {"dropout": "half"}, TypeError, "dropout: expected a probability, got 'half'"),
        ((D, H), {"dtype": np.float16}, TypeError, "dtype: expected float32 or float64, got float16"),
        ((D, H), {"dtype": "floating"}, TypeError, "dtype: expected float32 or float64, got 'floating'"),
        ((D, H), {"init": "zeros"}, ValueError, "init: expected one of 'uniform', 'orthogonal', got 'zeros'"),
        ((D, H), {"rng": "seed"}, TypeError, "rng: expected None, a whole number or a numpy Generator, got 'seed'"),
        ((D, H), {"rng": -1}, ValueError, "rng: expected a seed of at least 0, got -1"),
    ],
)
@every_layer
def test_bad_constructor_arguments(kind, arguments, options, error, message):
    with pytest.raises(error) as caught:
        LAYERS[kind](*arguments, **options)
    assert str(caught.value) == message


def test_unknown_nonlinearity():
    with pytest.raises(ValueError, match="^nonlinearity: expected one of 'tanh', .*, got 'softplus'$"):
        RNN(D, H, nonlinearity="softplus")


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda la: la([["a"] * D]),
            TypeError,
            "x: expected real numbers, got <U1; encode words or classes as numbers",
        ),
        (lambda la: la(zeros(T, N, D + 1)), ValueError, "x: expected shape (N, T, 5) or (T, 5), got (7, 3, 6)"),
        (lambda la: la(zeros(D)), ValueError, "x: expected shape (N, T, 5) or (T, 5), got (5,)"),
        (lambda la: la(zeros(2, T, N, D)), ValueError, "x: expected shape (N, T, 5) or (T, 5), got (2, 7, 3, 5)"),
        (lambda la: la(zeros(N, T, D), zeros(2, N, H)), TypeError, "state: expected a tuple (h, c), got ndarray"),
        (
            lambda la: la(zeros(N, T, D), (zeros(2, N, H),)),
            TypeError,
            "state: expected a tuple (h, c), got a tuple of 1",
        ),
        (
            lambda la: la(zeros(N, T, D), (zeros(2, N, H), zeros(1, N, H))),
            ValueError,
            "c of state: expected shape (2, 3, 6), got (1, 3, 6)",
        ),
        (
            lambda la: la(zeros(T, D), (zeros(2, N, H), zeros(2, N, H))),
            ValueError,
            "h of state: expected shape (2, 6), got (2, 3, 6)",
        ),
        (
            lambda la: la(zeros(N, T, D), (zeros(2, N, H), zeros(2, N, H, dtype="f8"))),
            TypeError,
            "c of state: expected float32 like the parameters, got float64",
        ),
        (
            lambda la: la(zeros(N, T, D), (zeros(2, N, H), "c")),
            TypeError,
            "c of state: expected a NumPy array, got str",
        ),
    ],
)
def test_bad_call(call, error, message):
    layer = LSTM(D, H, bidirectional=True, batch_first=True)
    with pytest.raises(error) as caught:
        call(layer)
    assert str(caught.value) == message


@every_layer
def test_wrong_dtype(kind):
    layer = LAYERS[kind](D, H)
    with pytest.raises(TypeError, match="^x: expected real numbers, got complex128$"):
        layer(zeros(T, N, D, dtype="c16"))


def test_state_of_a_one_state_layer():
    layer = GRU(D, H)
    for state, error, message in [
        (zeros(2, N, H), ValueError, "state: expected shape (1, 3, 6), got (2, 3, 6)"),
        ((zeros(1, N, H), zeros(1, N, H)), TypeError, "state: expected a NumPy array, got a tuple of 2"),
    ]:
        with pytest.raises(error) as caught:
            layer(zeros(T, N, D), state)
        assert str(caught.value) == message


@every_layer
def test_backward_needs_a_training_call_and_uses_it_up(kind):
    layer = LAYERS[kind](D, H, rng=1)
    x, state, doutput, _dstate = random_arguments(layer)
    message = f"^{type(layer).__name__}.backward: expected a call with training=True before each backward, got none"
    with pytest.raises(RuntimeError, match=message):
        layer.backward(doutput)
    layer(x, state)
    with pytest.raises(RuntimeError, match=message):
        layer.backward(doutput)
    layer(x, state, training=True)
    layer.backward(doutput)
    with pytest.raises(RuntimeError, match=message):
        layer.backward(doutput)


@every_layer
def test_a_refused_backward_can_be_repeated(kind):
    layer = LAYERS[kind](D, H, 2, batch_first=True, rng=1)
    x, state, doutput, dstate = random_arguments(layer)
    expected = run(layer, x, state, doutput, dstate)
    layer.zero_grad()
    layer(x, state, training=True)
    for bad, error, message in [
        (doutput[:, :-1], ValueError, r"doutput: expected shape \(3, 7, 6\) like output, got \(3, 6, 6\)"),
        (doutput[:-1], ValueError, r"doutput: expected shape \(3, 7, 6\) like output, got \(2, 7, 6\)"),
        (doutput[0], ValueError, r"doutput: expected shape \(3, 7, 6\) like output, got \(7, 6\)"),
        (doutput[..., 1:], ValueError, r"doutput: expected shape \(N, T, 6\) or \(T, 6\), got \(3, 7, 5\)"),
        (doutput.astype("f8"), TypeError, "doutput: expected float32 like output, got float64"),
        (1.0, TypeError, "doutput: expected a NumPy array, got float"),
    ]:
        with pytest.raises(error, match=f"^{message}$"):
            layer.backward(bad, dstate)
    with pytest.raises(ValueError, match="dstate_n: expected shape"):
        layer.backward(doutput, joined(a[:1] for a in parts(dstate)))
    layer.backward(doutput, dstate)
    for name, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, expected["d" + name])


@every_layer
def test_nan_stays_in_its_batch_row(kind):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, rng=1)
    x, state, *_ = random_arguments(layer)
    clean, _ = layer(x, state)
    x[2, 1, 0] = np.nan
    output, _ = layer(x, state)
    np.testing.assert_array_equal(output[:, [0, 2]], clean[:, [0, 2]])
    assert np.isnan(output[:, 1]).all()


def test_build_refuses_an_unknown_class():
    with pytest.raises(ValueError, match="^class: expected a layer of fastrnn or a subclass .*, got 'Nope'$"):
        build({"class": "Nope"})
