"""Groups of parameters, frozen and tied ones, weight decay without biases: against PyTorch's groups and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import assert_output_close, every_dtype

from fastrnn import SGD, Adam, AdamW, Linear, RMSprop, Sequential, clip_grad_norm, clip_grad_value, optim

SHAPES = {"0.weight": (5, 3), "0.bias": (5,), "1.weight": (2, 5), "1.bias_hh_l0": (2,)}
OPTIMIZERS = [
    (SGD, {"lr": 0.1, "momentum": 0.8}),
    (RMSprop, {"lr": 0.05, "momentum": 0.5}),
    (optim.Adagrad, {"lr": 0.1}),
    (Adam, {"lr": 0.05}),
    (AdamW, {"lr": 0.05}),
]
every_optimizer = pytest.mark.parametrize("cls, options", OPTIMIZERS, ids=[cls.name for cls, _ in OPTIMIZERS])


def make(dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


@every_dtype
@every_optimizer
def test_groups_like_torch(cls, options, dtype):
    torch = pytest.importorskip("torch")
    params = make(dtype)
    ours = cls(
        **options,
        weight_decay=0.3,
        groups=[
            {"params": ["0.*"], "lr": 0.01},
            {"params": "*.bias*", "weight_decay": 0.0},
            {"params": "1.weight", "lr_scale": 0.0},
        ],
    )
    theirs = {name: torch.nn.Parameter(torch.tensor(param)) for name, param in params.items()}
    lr, slow = options["lr"], 0.01
    groups = [("0.weight", slow, 0.3), ("0.bias", slow, 0.0), ("1.weight", 0.0, 0.3), ("1.bias_hh_l0", lr, 0.0)]
    peer = getattr(torch.optim, cls.__name__)(
        [{"params": [theirs[name]], "lr": rate, "weight_decay": decay} for name, rate, decay in groups], **options
    )
    for step in range(8):
        if step == 4:  # a schedule moves all groups
            ours.lr *= 0.5
            for group in peer.param_groups:
                group["lr"] *= 0.5
        grads = make(dtype, 1 + step)
        for name, param in theirs.items():
            param.grad = torch.tensor(grads[name])
        ours.step(params, grads)
        peer.step()
    for name, param in theirs.items():
        assert_output_close(params[name], param.detach().numpy().astype("float64"), dtype, name)


@every_optimizer
def test_parameters_frozen_for_a_while_like_torch(cls, options, tmp_path):
    """PyTorch passes over parameters without a gradient, and counts their own steps."""
    torch = pytest.importorskip("torch")
    params = make()
    ours = cls(**options, weight_decay=0.1)
    theirs = {name: torch.nn.Parameter(torch.tensor(param)) for name, param in params.items()}
    peer = getattr(torch.optim, cls.__name__)(theirs.values(), weight_decay=0.1, **options)
    frozen = {0: ["0.weight"], 1: ["0.weight", "1.weight"], 4: ["1.weight"]}
    for step in range(7):
        grads = make(seed=1 + step)
        for name, param in theirs.items():
            param.grad = None if name in frozen.get(step, ()) else torch.tensor(grads[name])
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 2.0)
        left = {name: params[name].copy() for name in frozen.get(step, ())}
        assert ours.step(params, grads, clip_norm=2.0, frozen=frozen.get(step, ())) == pytest.approx(norm.item())
        for name, before in left.items():
            np.testing.assert_array_equal(params[name], before)
        peer.step()
        again = optim.from_config(ours.config())  # saved and loaded at each step
        again.load_state_dict(ours.state_dict())
        ours = again
    for name, param in theirs.items():
        assert_output_close(params[name], param.detach().numpy(), "float64", name)


@every_optimizer
def test_what_was_never_updated_has_no_state_in_a_file(cls, options):
    """A frozen table of word vectors would double and triple its file."""
    params = make()
    ours = cls(**options, groups=[{"params": "0.weight", "frozen": True}])
    for step in range(3):
        ours.step(params, make(seed=step))
    state = ours.state_dict()
    assert not any(name.endswith(".0.weight") for name in state if not name.startswith("idle."))
    for used_before in (False, True):
        again, theirs = optim.from_config(ours.config()), {name: param.copy() for name, param in params.items()}
        if used_before:
            again.step(make(), make(seed=9))
        again.load_state_dict(state)
        np.testing.assert_equal(again.state_dict(), state)
        again.groups = optim.groups.read_groups([], again.lr)  # from now on all learn
        again._settings = {}
        fresh = cls(**options)
        alone = {"0.weight": theirs["0.weight"].copy()}
        fresh.step(alone, {"0.weight": make(seed=4)["0.weight"]})
        again.step(theirs, make(seed=4))
        np.testing.assert_allclose(theirs["0.weight"], alone["0.weight"], rtol=1e-12)


def test_a_frozen_group_needs_no_gradient_and_has_no_part_in_the_norm():
    params, grads = make(), make(seed=1)
    optimizer = Adam(groups=[{"params": "0.*", "frozen": True}])
    norm = optimizer.step(params, {name: grad for name, grad in grads.items() if name[0] == "1"}, clip_norm=1.0)
    assert norm == pytest.approx(np.sqrt(sum(np.square(grads[n]).sum() for n in ("1.weight", "1.bias_hh_l0"))))
    for name, before in make().items():
        assert np.array_equal(params[name], before) == (name[0] == "0")


@every_optimizer
def test_one_group_of_all_is_none(cls, options):
    plain, grouped = make("float32"), make("float32")
    ours = cls(**options), cls(**options, groups=[{"params": "*", "lr_scale": 1.0}])
    for step in range(3):
        ours[0].step(plain, make("float32", step))
        ours[1].step(grouped, make("float32", step))
    for name, param in plain.items():
        np.testing.assert_array_equal(grouped[name], param)


@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_weight_decay_spares_biases(cls):
    params = make()
    cls(lr=0.1, weight_decay=0.5, decay_biases=False).step(params, {name: 0 * p for name, p in params.items()})
    for name, before in make().items():
        np.testing.assert_allclose(params[name], before * (1 if ".bias" in name else 0.95), rtol=1e-12)
    params = make()
    groups = [{"params": "0.bias", "weight_decay": 0.5}]
    optimizer = cls(lr=0.1, weight_decay=0.5, decay_biases=False, groups=groups)
    optimizer.step(params, {name: 0 * p for name, p in params.items()})
    np.testing.assert_allclose(params["0.bias"], make()["0.bias"] * 0.95, rtol=1e-12)


def test_layers_name_groups_and_the_configuration_is_json():
    model = Sequential(Linear(3, 4, rng=0), Linear(4, 2, rng=1))
    optimizer = Adam(
        lr=0.1, groups=[{"params": model[1], "lr": 0.01}, {"params": [model[0], "1.bias"], "frozen": True}]
    )
    optimizer.resolve(model.params)
    config = json.loads(json.dumps(optimizer.config()))
    assert config["groups"] == [
        {"params": ["1.weight", "1.bias"], "lr_scale": pytest.approx(0.1)},
        {"params": ["1.bias", "0.weight", "0.bias"], "frozen": True},
    ]
    again, before = optim.from_config(config), model.state_dict()
    assert again.config() == config
    again.step(model.params, {name: np.ones_like(p) for name, p in model.params.items()})
    moved = {name for name, p in model.params.items() if not np.array_equal(p, before[name])}
    assert moved == {"1.weight"}


# tied parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_an_array_under_two_names_is_one_parameter(shared):
    """Updated, decayed and counted once, with the sum of its gradients, whether these are one array or two."""
    params = make()
    alone = {"0.weight": params["0.weight"].copy(), "0.bias": params["0.bias"].copy()}
    tied = {"0.weight": params["0.weight"], "0.bias": params["0.bias"], "1.weight": params["0.weight"]}
    ours, theirs = AdamW(lr=0.1, weight_decay=0.2), AdamW(lr=0.1, weight_decay=0.2)
    for step in range(3):
        a, b = make(seed=step), make(seed=10 + step)
        total = a["0.weight"] + b["0.weight"]
        parts = (total, total) if shared else (a["0.weight"], b["0.weight"])
        grads = {"0.weight": parts[0], "0.bias": a["0.bias"], "1.weight": parts[1]}
        norm = ours.step(tied, grads, clip_norm=1.0)
        assert norm == theirs.step(alone, {"0.weight": total, "0.bias": a["0.bias"]}, clip_norm=1.0)
    for name, param in alone.items():
        np.testing.assert_array_equal(tied[name], param)
    assert [name for name in ours.state_dict() if name.startswith("exp_avg.")] == ["exp_avg.0.weight", "exp_avg.0.bias"]


def test_a_gradient_under_two_names_is_clipped_once():
    grad = np.array([3.0, 4.0])
    assert clip_grad_norm({"a": grad, "b": grad}, 1.0) == 5.0
    np.testing.assert_allclose(grad, [0.6, 0.8], rtol=1e-6)
    clip_grad_value({"a": grad, "b": grad}, 0.7)
    np.testing.assert_allclose(grad, [0.6, 0.7], rtol=1e-6)


# errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "groups, error, message",
    [
        ({"params": "0.*"}, TypeError, "groups: expected a list of dicts, got dict"),
        ([{"lr": 1.0}], ValueError, "groups: expected dicts with 'params'"),
        ([{"params": "0.*", "rate": 1.0}], ValueError, "groups: expected the entries params, lr, .* got rate"),
        ([{"params": 3}], TypeError, "groups: expected names, patterns or layers in 'params', got int"),
        ([{"params": "0.*", "lr": -1}], ValueError, r"groups\['lr'\]: expected a number >= 0, got -1"),
        ([{"params": "0.*", "lr": 1, "lr_scale": 1}], ValueError, "expected 'lr' without 'lr_scale'"),
        ([{"params": "0.*", "frozen": 1}], TypeError, r"groups\['frozen'\]: expected True or False, got 1"),
    ],
)
def test_bad_groups(groups, error, message):
    with pytest.raises(error, match=message):
        Adam(groups=groups)


def test_groups_that_nothing_belongs_to():
    for groups in ([{"params": "2.*", "lr": 0.1}], [{"params": Linear(2, 2), "lr": 0.1}]):
        params = make()
        with pytest.raises(ValueError, match="groups: expected"):
            Adam(groups=groups).step(params, make(seed=1))
        np.testing.assert_equal(params, make())
