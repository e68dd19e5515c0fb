"""The adaptive softmax: against a plain one in NumPy, PyTorch's, finite differences, and in a language model.

Letters: D input features, V classes, N batch, T time steps.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn
from fastrnn import AdaptiveSoftmax, LanguageModel, Trainer, losses
from fastrnn.layers import GRU, Embedding, Sequential, build

D, V, N, T = 16, 40, 5, 7
CUTOFFS = [6, 15]


def make(**options):
    return AdaptiveSoftmax(D, V, CUTOFFS, div_value=2.0, dtype=np.float64, rng=0, **options)


def case(seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, T, D)), rng.integers(0, V, (N, T)), rng.standard_normal((N, T, 1))


def plain(layer, x):
    """log p by the formula, class by class."""
    p = dict(layer.params)
    head = x @ p["head.weight"].T + p.get("head.bias", 0)
    head = np.exp(head) / np.exp(head).sum(-1, keepdims=True)
    out = [head[..., : CUTOFFS[0]]]
    for i in range(2):
        tail = x @ p[f"tail.{i}.0.weight"].T @ p[f"tail.{i}.1.weight"].T
        out.append(head[..., CUTOFFS[0] + i, None] * np.exp(tail) / np.exp(tail).sum(-1, keepdims=True))
    return np.log(np.concatenate(out, axis=-1))


@pytest.mark.parametrize("head_bias", [False, True])
def test_it_is_the_plain_formula(head_bias):
    layer, (x, targets, _) = make(head_bias=head_bias), case()
    expected = plain(layer, x)
    np.testing.assert_allclose(np.exp(expected).sum(-1), 1)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12)
    nll = layer.run(x, targets=targets)[0]
    np.testing.assert_allclose(nll, -np.take_along_axis(expected, targets[..., None], -1), rtol=1e-12)


def gradients(layer, x, targets, dy):
    layer.zero_grad()
    layer.run(x, targets=targets, training=True)
    dx, _ = layer.run_backward(dy)
    return {"x": dx, **{name: grad.copy() for name, grad in layer.grads.items()}}


@pytest.mark.parametrize("only", [None, 0, 20])
def test_gradients_by_finite_differences(only):
    layer, (x, targets, dy) = make(head_bias=True), case()
    if only is not None:
        targets[...] = only  # clusters that no target is in
    targets[0, :3] = -100
    found = gradients(layer, x, targets, dy)

    def loss():
        return float((layer.run(x, targets=targets)[0] * dy).sum())

    rng = np.random.default_rng(3)
    for name, array in {"x": x, **layer.params}.items():
        for index in rng.choice(array.size, min(array.size, 12), replace=False):
            place = np.unravel_index(index, array.shape)
            old = array[place]
            values = []
            for step in (1e-6, -1e-6):
                array[place] = old + step
                values.append(loss())
            array[place] = old
            assert found[name][place] == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-7), name


def test_it_agrees_with_torch():
    torch = pytest.importorskip("torch")
    layer, (x, targets, _) = make(head_bias=True), case()
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(D, V, CUTOFFS, div_value=2.0, head_bias=True, dtype=torch.float64)
    layer.load_state_dict({name: value.numpy() for name, value in module.state_dict().items()})
    a = torch.tensor(x.reshape(-1, D), requires_grad=True)
    output, loss = module(a, torch.tensor(targets.reshape(-1)))
    loss.backward()
    nll = layer.run(x, targets=targets, training=True)[0]
    np.testing.assert_allclose(-nll.reshape(-1), output.detach().numpy(), rtol=1e-12)
    value, dnll = losses.nll(nll, targets)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    dx, _ = layer.run_backward(dnll)
    np.testing.assert_allclose(dx.reshape(-1, D), a.grad.numpy(), atol=1e-14)
    for name, param in module.named_parameters():
        np.testing.assert_allclose(layer.grads[name], param.grad.numpy(), atol=1e-14, err_msg=name)
    np.testing.assert_allclose(layer(x).reshape(-1, V), module.log_prob(a).detach().numpy(), rtol=1e-12)


def test_nll_counts_what_counts():
    outputs, targets = np.arange(6.0).reshape(3, 2, 1), np.array([[1, -100], [2, 3], [-100, 4]])
    loss, gradient = losses.nll(outputs, targets)
    assert loss == (0 + 2 + 3 + 5) / 4
    np.testing.assert_array_equal(gradient[..., 0], [[0.25, 0], [0.25, 0.25], [0, 0.25]])
    loss, gradient = losses.nll(outputs, targets, reduction="sum", lengths=np.array([1, 2]))
    assert loss == 3 and gradient.sum() == 2
    assert losses.nll(outputs, targets, reduction="none")[0].tolist() == [[[0], [0]], [[2], [3]], [[0], [5]]]
    with pytest.raises(ValueError, match=r"^targets: expected shape \(3, 2, 1\) like outputs, got \(2,\)$"):
        losses.nll(outputs, targets[0])


@pytest.mark.parametrize("options", [{}, {"tbptt": 3}, {"tbptt": (2, 4)}])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_trainer_trains_it(tmp_path, batch_first, options):
    x = np.random.default_rng(0).integers(0, V, (24, 10))
    model = Sequential(
        Embedding(V, 8, rng=0), GRU(8, D, batch_first=batch_first, rng=1), AdaptiveSoftmax(D, V, CUTOFFS, rng=2)
    )
    trainer = Trainer(model, "nll", fastrnn.Adam(0.02), clip_norm=1.0, **options)
    before = trainer.evaluate(x, x)["loss"]
    trainer.fit(x, x, epochs=25, batch_size=6, progress=False)
    after = trainer.evaluate(x, x)["loss"]
    assert after < 0.5 * before
    logits = trainer.predict(x)
    assert after == pytest.approx(losses.cross_entropy(logits, x)[0], rel=1e-5)
    trainer.save(tmp_path / "a")
    assert Trainer.load(tmp_path / "a").evaluate(x, x)["loss"] == after


def test_a_language_model_of_many_words(tmp_path):
    text = "the cat sat on the mat . the dog sat on the log .\n" * 80
    model = LanguageModel.of(text, "words", hidden_size=16, cutoffs=[4, 7], rng=0)
    assert model.loss == "nll" and LanguageModel.of(text, hidden_size=4).loss == "cross_entropy"
    trainer = Trainer(model, model.loss, fastrnn.Adam(1e-2), stateful=True)
    x, y = model.samples(text, 4, 16)
    before = model.score(text)
    trainer.fit(x, y, epochs=6, batch_size=4, progress=False)
    after = model.score(text)
    assert after["loss"] < 0.3 * before["loss"]
    tokens = model.vocabulary.encode(text)
    whole, _ = losses.cross_entropy(model(tokens[None, :-1]), tokens[None, 1:])
    assert after["loss"] == pytest.approx(whole, rel=1e-5)
    assert "".join(model.write("the", 4, temperature=0)).split()[1] in ("sat", "on")
    trainer.save(tmp_path / "a")
    again = Trainer.load(tmp_path / "a").model
    assert again.score(text) == after and again.config() == model.config()


def test_description():
    layer = build(make(head_bias=True).config())
    assert layer.cutoffs == (*CUTOFFS, V) and layer.params["tail.1.0.weight"].shape == (4, D)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: AdaptiveSoftmax(D, V, []), ValueError, "cutoffs: expected ascending numbers below num_classes = 40"),
        (lambda: AdaptiveSoftmax(D, V, [9, 9]), ValueError, "cutoffs: expected ascending numbers below"),
        (lambda: AdaptiveSoftmax(D, V, [40]), ValueError, "cutoffs: expected ascending numbers below"),
        (lambda: make()(np.zeros((2, 3))), ValueError, "x: expected shape (..., 16), got (2, 3)"),
        (lambda: make()(np.zeros((2, D)), training=True), ValueError, "targets: expected a class for each row of x"),
        (lambda: make().run(np.zeros((2, D)), targets=np.array([1, V])), ValueError, "targets: expected classes 0..39"),
        (lambda: make().run(np.zeros((2, D)), targets=np.array([1])), ValueError, "targets: expected shape (2,) like"),
        (lambda: make().run(np.zeros((2, D)), targets=np.zeros(2)), TypeError, "targets: expected integer classes"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
