"""Optimisers against numbers worked out by hand and against PyTorch; clipping; saving and loading."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from conftest import assert_output_close, every_dtype
from safetensors.numpy import load_file, save_file

from fastrnn import optim
from fastrnn.optim import SGD, Adagrad, Adam, AdamW, RMSprop, clip_grad_norm, clip_grad_value

SHAPES = {"0.weight_ih_l0": (5, 3), "0.bias_ih_l0": (5,), "1.weight": (2, 3, 4), "1.scale": ()}

# Every formula, as (class, options), with a strong effect of every option.
VARIANTS = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "weight_decay": 0.3}),
    (SGD, {"lr": 0.1, "momentum": 0.8}),
    (SGD, {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3}),
    (SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.3}),
    (RMSprop, {}),
    (RMSprop, {"lr": 0.05, "alpha": 0.8, "eps": 0.1, "weight_decay": 0.3}),
    (RMSprop, {"lr": 0.05, "alpha": 0.8, "eps": 0.1, "momentum": 0.7}),
    (Adagrad, {}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.2, "weight_decay": 0.3, "initial_accumulator_value": 0.5, "eps": 0.1}),
    (Adam, {}),
    (Adam, {"lr": 0.05, "betas": (0.7, 0.8), "eps": 0.1, "weight_decay": 0.3}),
    (AdamW, {}),
    (AdamW, {"lr": 0.05, "betas": (0.7, 0.8), "eps": 0.1, "weight_decay": 0.3}),
]
IDS = ["-".join([cls.name, *options]) for cls, options in VARIANTS]
every_variant = pytest.mark.parametrize("cls, options", VARIANTS, ids=IDS)


def make(dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


@pytest.fixture(params=[7, None], ids=["blocks of 7", "one block"])
def block(request, monkeypatch):
    """Parameters cut into many blocks, some ending inside an array, and all in one."""
    if request.param is not None:
        monkeypatch.setattr(optim.flat_state, "BLOCK", request.param)


# by hand -----------------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize(
    "optimizer, gradients, expected",
    [
        # p starts at 1; b, v, s, m are 0
        (SGD(lr=0.1), [1, 2], [0.9, 0.7]),
        (SGD(lr=0.1, weight_decay=0.5), [1, 2], [0.85, 0.6075]),  # g: 1.5, then 2.425
        (SGD(lr=0.1, momentum=0.5), [1, 2], [0.9, 0.65]),  # b: 1, then 2.5
        (SGD(lr=0.1, momentum=0.5, nesterov=True), [1, 2], [0.85, 0.525]),  # 1 + b/2, then 2 + b/2
        (RMSprop(lr=0.1, alpha=0.75, eps=0), [2, 1], [0.8, 0.7]),  # v: 1, then 1
        (RMSprop(lr=0.1, alpha=0.75, eps=1), [2, 1], [0.9, 0.85]),
        (RMSprop(lr=0.1, alpha=0.75, eps=0, momentum=0.5), [2, 1], [0.8, 0.6]),  # b: 2, then 2
        (Adagrad(lr=0.1, eps=0), [3, 4], [0.9, 0.82]),  # s: 9, then 25
        (Adagrad(lr=0.1, eps=0, lr_decay=1), [3, 4], [0.9, 0.86]),
        (Adagrad(lr=0.1, eps=1, initial_accumulator_value=16), [3], [0.95]),  # s: 25
        # m: 1, then 1/2, corrected 2, then 2/3; v: 1, then 3/4, corrected 4, then 12/7
        (Adam(lr=0.1, betas=(0.5, 0.75), eps=0), [2, 0], [0.9, 0.9 - 0.1 * (2 / 3) / math.sqrt(12 / 7)]),
        (Adam(lr=0.1, betas=(0.5, 0.75), eps=2), [2], [0.95]),
        (Adam(lr=0.1, eps=0, weight_decay=0.5), [-2], [1.1]),  # Adam's first step is lr, whatever the size
        (AdamW(lr=0.1, eps=0, weight_decay=0.5), [-2], [1.05]),
    ],
    ids=repr,
)
def test_by_hand(optimizer, gradients, expected, dtype):
    optimizer = optim.from_config(optimizer.config())  # the parameters are shared by two dtypes
    p = np.ones(3, dtype)
    for gradient, value in zip(gradients, expected, strict=True):
        optimizer.step({"p": p}, {"p": np.full(3, gradient, dtype)})
        assert_output_close(p, np.full(3, value), dtype)


# PyTorch -----------------------------------------------------------------------------------------------------


@every_dtype
@every_variant
def test_like_torch(cls, options, dtype, block):
    torch = pytest.importorskip("torch")
    params = make(dtype)
    theirs = {name: torch.nn.Parameter(torch.tensor(param)) for name, param in params.items()}
    ours = cls(**options)
    peer = getattr(torch.optim, cls.__name__)(theirs.values(), **options)
    for step in range(12):
        if step == 7:  # a schedule
            ours.lr *= 0.5
            peer.param_groups[0]["lr"] *= 0.5
        grads = make(dtype, seed=1 + step)
        for name, param in theirs.items():
            param.grad = torch.tensor(grads[name])
        ours.step(params, grads)
        peer.step()
        for name, param in theirs.items():
            assert_output_close(params[name], param.detach().numpy().astype("float64"), dtype, name)


@every_dtype
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 3.0, 1e3, math.inf])
def test_clip_grad_norm_like_torch(max_norm, dtype):
    torch = pytest.importorskip("torch")
    grads = make(dtype)
    theirs = [torch.nn.Parameter(torch.tensor(grad)) for grad in grads.values()]
    for param in theirs:
        param.grad = param.detach().clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    norm = clip_grad_norm(grads, max_norm)
    assert norm == pytest.approx(expected.item(), rel=1e-6)
    for (name, grad), param in zip(grads.items(), theirs):
        assert_output_close(grad, param.grad.numpy().astype("float64"), dtype, name)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_norm_like_torch(bad):
    torch = pytest.importorskip("torch")
    grads = {"a": np.array([1.0, bad]), "b": np.array([2.0])}
    theirs = [torch.nn.Parameter(torch.zeros(grad.shape, dtype=torch.float64)) for grad in grads.values()]
    for param, grad in zip(theirs, grads.values()):
        param.grad = torch.tensor(grad)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    np.testing.assert_equal(clip_grad_norm(grads, 1.0), expected.item())
    for param, grad in zip(theirs, grads.values()):
        np.testing.assert_array_equal(grad, param.grad.numpy())


# clipping ----------------------------------------------------------------------------------------------------


@every_dtype
def test_clip_grad_norm(dtype):
    a, b = np.array([[3.0]], dtype), np.array([0, 4], dtype)
    assert clip_grad_norm({"a": a, "b": b}, 5.001) == 5.0
    assert a == 3
    norm = clip_grad_norm({"a": a, "b": b}, 1.0)
    assert isinstance(norm, float) and norm == 5.0
    assert_output_close(a, np.array([[3 / 5.000001]]), dtype)
    assert_output_close(b, np.array([0, 4 / 5.000001]), dtype)
    assert clip_grad_norm({}, 1.0) == 0.0


def test_clip_grad_norm_of_large_and_strided_gradients():
    rng = np.random.default_rng(0)
    grad = rng.standard_normal((500, 601)).astype("float32")
    norm = math.sqrt(np.square(grad[:, ::2], dtype="float64").sum())
    expected = grad[:, ::2] / norm
    rest = grad[:, 1::2].copy()
    assert clip_grad_norm({"a": grad[:, ::2]}, 1.0) == pytest.approx(norm, rel=1e-6)
    assert_output_close(grad[:, ::2], expected.astype("float64"), "float32")
    np.testing.assert_array_equal(grad[:, 1::2], rest)


def test_clip_grad_norm_not_finite():
    grads = {"a": np.array([1, np.inf]), "b": np.array([2.0])}
    assert clip_grad_norm(grads, 1.0) == math.inf
    np.testing.assert_array_equal(grads["a"], [0, np.nan])
    np.testing.assert_array_equal(grads["b"], [0])
    grads = {"a": np.array([1, np.nan]), "b": np.array([2.0])}
    assert math.isnan(clip_grad_norm(grads, 1.0))
    assert np.isnan(grads["a"]).all() and np.isnan(grads["b"]).all()


def test_clip_grad_value():
    a, b = np.array([-3, -0.5, np.nan, np.inf]), np.array([[2, 0.25]], np.float32)
    assert clip_grad_value({"a": a, "b": b}, 0.5) is None
    np.testing.assert_array_equal(a, [-0.5, -0.5, np.nan, 0.5])
    np.testing.assert_array_equal(b, np.array([[0.5, 0.25]], np.float32))


# steps -------------------------------------------------------------------------------------------------------


@every_variant
def test_blocks_do_not_matter(cls, options, monkeypatch):
    ways = []
    for size in (optim.flat_state.BLOCK, 7, 1):
        monkeypatch.setattr(optim.flat_state, "BLOCK", size)
        params, optimizer = make("float32"), cls(**options)
        for step in range(3):
            optimizer.step(params, make("float32", seed=step))
        ways.append(params)
    for params in ways[1:]:
        for name, param in params.items():
            np.testing.assert_array_equal(param, ways[0][name])


@every_variant
def test_params_are_updated_in_place_and_grads_left_alone(cls, options):
    params, grads = make("float32"), make("float32", seed=1)
    arrays, before = dict(params), {name: param.copy() for name, param in params.items()}
    cls(**options).step(params, grads)
    for name, grad in make("float32", seed=1).items():
        assert params[name] is arrays[name]
        assert (params[name] != before[name]).all()
        np.testing.assert_array_equal(grads[name], grad)


def test_a_replaced_array_is_followed():
    params, grads = make("float64"), make("float64", seed=1)
    optimizer = SGD(lr=0.5)
    optimizer.step(params, grads)
    params["1.weight"] = np.zeros((2, 3, 4))
    optimizer.step(params, grads)
    np.testing.assert_array_equal(params["1.weight"], -0.5 * grads["1.weight"])


def test_parameters_left_out_are_frozen():
    params, grads = make("float64"), make("float64", seed=1)
    Adam().step({"1.weight": params["1.weight"]}, grads)
    for name, before in make("float64").items():
        assert np.array_equal(params[name], before) == (name != "1.weight")


def test_lr_zero_changes_nothing():
    params = make("float32")
    AdamW(lr=0).step(params, make("float32", seed=1))
    for name, before in make("float32").items():
        np.testing.assert_array_equal(params[name], before)


def test_nan_stays_in_its_entry():
    params, grads = make("float32"), make("float32", seed=1)
    clean = make("float32")
    Adam().step(clean, grads)
    grads["1.weight"][1, 2, 3] = np.nan
    Adam().step(params, grads)
    clean["1.weight"][1, 2, 3] = np.nan
    for name, param in params.items():
        np.testing.assert_array_equal(param, clean[name])


def test_an_empty_parameter():
    params = {"a": np.zeros((0, 3)), "b": np.ones(2)}
    Adam(lr=0.5, eps=0).step(params, {"a": np.zeros((0, 3)), "b": np.ones(2)})
    np.testing.assert_allclose(params["b"], 0.5, rtol=1e-12)


# saving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used_before", [False, True])
@every_dtype
@every_variant
def test_save_and_load_go_on_bitwise(cls, options, dtype, used_before, tmp_path, block):
    params, optimizer = make(dtype), cls(**options)
    for step in range(3):
        optimizer.step(params, make(dtype, seed=step))
    state = optimizer.state_dict()
    assert state["step"] == 3
    save_file({name: np.asarray(value) for name, value in state.items()}, tmp_path / "state.safetensors")
    config = json.loads(json.dumps(optimizer.config()))
    copies = {name: param.copy() for name, param in params.items()}

    again = optim.from_config(config)
    if used_before:
        again.step(make(dtype), make(dtype, seed=9))
    again.load_state_dict(load_file(tmp_path / "state.safetensors"))
    for step in range(3, 6):
        np.testing.assert_equal(again.state_dict(), optimizer.state_dict())
        optimizer.step(params, make(dtype, seed=step))
        again.step(copies, make(dtype, seed=step))
        for name, param in params.items():
            np.testing.assert_array_equal(copies[name], param)
    assert again.config() == config


def test_state_dict_is_named_by_slot_and_parameter_and_is_a_copy():
    params, optimizer = make("float32"), Adam()
    assert optimizer.state_dict() == {"step": 0}
    optimizer.step(params, make("float32", seed=1))
    state = optimizer.state_dict()
    assert list(state) == ["step", *(f"{slot}.{name}" for slot in ("exp_avg", "exp_avg_sq") for name in SHAPES)]
    np.testing.assert_allclose(state["exp_avg.1.weight"], 0.1 * make("float32", seed=1)["1.weight"], rtol=1e-6)
    state["exp_avg.1.weight"][...] = 7
    assert (optimizer.state_dict()["exp_avg.1.weight"] != 7).all()


def test_a_state_from_before_the_first_step_begins_anew():
    fresh, used = make("float32"), make("float32")
    optimizer = SGD(lr=0.1, momentum=0.9)
    empty = optimizer.state_dict()
    optimizer.step(make("float32"), make("float32", seed=5))
    optimizer.load_state_dict(empty)
    optimizer.step(used, make("float32", seed=6))
    SGD(lr=0.1, momentum=0.9).step(fresh, make("float32", seed=6))
    for name in SHAPES:
        np.testing.assert_array_equal(used[name], fresh[name])


def bad_states():
    optimizer = Adam()
    optimizer.step(make("float32"), make("float32", seed=1))
    good = optimizer.state_dict()
    wrong_shape, wrong_dtype = dict(good), dict(good)
    wrong_shape["exp_avg.1.weight"] = np.zeros((3, 4), np.float32)
    wrong_dtype["exp_avg.1.weight"] = np.zeros((2, 3, 4))
    without = {name: value for name, value in good.items() if name != "exp_avg.1.weight"}
    return [
        (without, ValueError, "got without ['exp_avg.1.weight'] and with [] besides"),
        (good | {"exp_avg.2.weight": np.zeros(3)}, ValueError, "got without [] and with ['exp_avg.2.weight'] besides"),
        (wrong_shape, ValueError, "state['exp_avg.1.weight']: expected shape (2, 3, 4), got (3, 4)"),
        (wrong_dtype, TypeError, "state['exp_avg.1.weight']: expected float32, got float64"),
    ]


@pytest.mark.parametrize("state, error, message", bad_states())
def test_states_that_do_not_fit_the_parameters(state, error, message):
    used, params = Adam(), make("float32")
    used.step(params, make("float32", seed=1))
    before = used.state_dict()
    with pytest.raises(error, match=re.escape(message)):
        used.load_state_dict(state)
    np.testing.assert_equal(used.state_dict(), before)
    fresh, before = Adam(), make("float32")
    fresh.load_state_dict(state)
    params = make("float32")
    with pytest.raises(error, match=re.escape(message)):
        fresh.step(params, make("float32", seed=1))
    np.testing.assert_equal(params, before)


@pytest.mark.parametrize(
    "state, message",
    [
        ({}, "state['step']: expected an integer >= 0, got None"),
        ({"step": -1}, "state['step']: expected an integer >= 0, got -1"),
        ({"step": 1.5}, "state['step']: expected an integer >= 0, got 1.5"),
        ({"step": 2}, "state: expected arrays of exp_avg, exp_avg_sq after 2 steps, got none"),
        ({"step": 2, "sum.a": np.zeros(2)}, "keeps exp_avg, exp_avg_sq, got 'sum.a'"),
    ],
)
def test_states_of_something_else(state, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Adam().load_state_dict(state)


# errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            lambda p, g: p.pop("1.weight"),
            ValueError,
            "params: expected those of the first step, got without ['1.weight'] and with [] besides",
        ),
        (
            lambda p, g: p.update(new=np.zeros(2)),
            ValueError,
            "params: expected those of the first step, got without [] and with ['new'] besides",
        ),
        (lambda p, g: g.pop("1.weight"), ValueError, "grads: expected a gradient for '1.weight', got none"),
        (lambda p, g: g.update({"1.weight": None}), ValueError, "grads: expected a gradient for '1.weight', got none"),
        (
            lambda p, g: g.update({"1.weight": np.zeros((2, 3), "f")}),
            ValueError,
            "grads['1.weight']: expected shape (2, 3, 4), got (2, 3)",
        ),
        (
            lambda p, g: g.update({"1.weight": np.zeros((2, 3, 4))}),
            TypeError,
            "grads['1.weight']: expected float32, got float64",
        ),
        (
            lambda p, g: p.update({"1.weight": np.zeros((4, 3), "f")}),
            ValueError,
            "params['1.weight']: expected shape (2, 3, 4), got (4, 3)",
        ),
        (
            lambda p, g: p.update({"1.weight": np.zeros((2, 3, 4))}),
            TypeError,
            "params['1.weight']: expected float32, got float64",
        ),
        (
            lambda p, g: p.update({"1.weight": np.zeros((4, 3, 2), "f").T}),
            ValueError,
            "params['1.weight']: expected a C-contiguous, writeable array, got a strided one",
        ),
        (
            lambda p, g: p["1.weight"].setflags(write=False),
            ValueError,
            "params['1.weight']: expected a C-contiguous, writeable array, got a read-only one",
        ),
    ],
)
def test_step_errors_leave_all_as_it_was(change, error, message):
    params, grads, optimizer = make("float32"), make("float32", seed=1), Adam()
    optimizer.step(params, grads)
    state = optimizer.state_dict()
    change(params, grads)
    before = {name: param.copy() for name, param in params.items()}
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        optimizer.step(params, grads)
    np.testing.assert_equal(params, before)
    np.testing.assert_equal(optimizer.state_dict(), state)


@pytest.mark.parametrize(
    "params, error, message",
    [
        ({}, ValueError, "params: expected at least one array, got none"),
        ({"a": np.arange(3)}, TypeError, "params['a']: expected an array of float32 or float64, got int64"),
        ({"a": [1.0]}, TypeError, "params['a']: expected an array of float32 or float64, got list"),
        ({"a": np.zeros(2), "b": np.zeros(2, "f")}, TypeError, "params['b']: expected float64, got float32"),
    ],
)
def test_first_step_errors(params, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        Adam().step(params, dict(params))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: SGD(lr=-0.1), ValueError, "lr: expected a number >= 0, got -0.1"),
        (lambda: SGD(lr="0.1"), TypeError, "lr: expected a number >= 0, got '0.1'"),
        (lambda: SGD(lr=math.nan), ValueError, "lr: expected a number >= 0, got nan"),
        (lambda: SGD(lr=math.inf), ValueError, "lr: expected a number >= 0, got inf"),
        (lambda: SGD(lr=True), TypeError, "lr: expected a number >= 0, got True"),
        (lambda: setattr(SGD(), "lr", -1), ValueError, "lr: expected a number >= 0, got -1"),
        (lambda: SGD(momentum=-1), ValueError, "momentum: expected a number >= 0, got -1"),
        (lambda: SGD(nesterov=True), ValueError, "nesterov: expected a momentum > 0 with it, got momentum=0"),
        (lambda: SGD(nesterov=0.9), TypeError, "nesterov: expected True or False, got 0.9"),
        (lambda: SGD(weight_decay=-1), ValueError, "weight_decay: expected a number >= 0, got -1"),
        (lambda: RMSprop(alpha=1.0), ValueError, "alpha: expected a number in [0, 1), got 1.0"),
        (lambda: RMSprop(eps=-1), ValueError, "eps: expected a number >= 0, got -1"),
        (lambda: RMSprop(momentum=-1), ValueError, "momentum: expected a number >= 0, got -1"),
        (lambda: Adagrad(lr_decay=-1), ValueError, "lr_decay: expected a number >= 0, got -1"),
        (lambda: Adagrad(eps=None), TypeError, "eps: expected a number >= 0, got None"),
        (
            lambda: Adagrad(initial_accumulator_value=-1),
            ValueError,
            "initial_accumulator_value: expected a number >= 0, got -1",
        ),
        (lambda: Adam(betas=(0.9, 1)), ValueError, "betas[1]: expected a number in [0, 1), got 1"),
        (lambda: Adam(betas=(-0.1, 0.9)), ValueError, "betas[0]: expected a number in [0, 1), got -0.1"),
        (lambda: Adam(betas=0.9), ValueError, "betas: expected two numbers, got 0.9"),
        (lambda: AdamW(eps=-1), ValueError, "eps: expected a number >= 0, got -1"),
        (lambda: clip_grad_norm({}, -1), ValueError, "max_norm: expected a number >= 0, got -1"),
        (lambda: clip_grad_norm({}, math.nan), ValueError, "max_norm: expected a number >= 0, got nan"),
        (lambda: clip_grad_value({}, None), TypeError, "value: expected a number >= 0, got None"),
        (
            lambda: optim.get("nadam"),
            ValueError,
            "optimizer: expected one of sgd, rmsprop, adagrad, adam, adamw, got 'nadam'",
        ),
        (lambda: optim.get(Adam), TypeError, "optimizer: expected a name or an Optimizer, got type"),
        (
            lambda: optim.get(SGD(), lr=1),
            TypeError,
            "lr: SGD(lr=0.001, momentum=0.0, nesterov=False, weight_decay=0.0) has its hyperparameters already",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


# making ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [SGD, RMSprop, Adagrad, Adam, AdamW])
def test_defaults_are_those_of_torch(cls):
    torch = pytest.importorskip("torch")
    peer = getattr(torch.optim, cls.__name__)([torch.zeros(1)]).defaults
    config = cls().config()
    assert config.pop("name") == cls.name
    for key, value in config.items():
        assert peer[key] == (tuple(value) if isinstance(value, list) else value), key


def test_get():
    optimizer = optim.get("adam", lr=0.5, betas=[0.8, 0.9])
    assert type(optimizer) is Adam
    assert repr(optimizer) == "Adam(lr=0.5, betas=(0.8, 0.9), eps=1e-08, weight_decay=0.0)"
    assert optimizer.config() == {"name": "adam", "lr": 0.5, "betas": [0.8, 0.9], "eps": 1e-8, "weight_decay": 0.0}
    assert optim.get(optimizer) is optimizer
    assert [type(optim.get(name)) for name in ("sgd", "rmsprop", "adagrad", "adamw")] == [SGD, RMSprop, Adagrad, AdamW]
    with pytest.raises(TypeError, match="momentum"):
        optim.get("adam", momentum=0.9)
