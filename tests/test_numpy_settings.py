"""The caller's NumPy settings, and his memory: rounding to zero raises nothing; small results keep no large arrays."""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn

SCALES = {"f4": [1, 1e-30, 1e-40, 1e3, 3e37], "f8": [1, 1e-300, 1e-310, 1e3, 1e300]}
RNG = np.random.default_rng(0)


def layers_of(dtype):
    options = {"dtype": dtype, "rng": 0}
    yield fastrnn.RNN(3, 4, nonlinearity="relu", **options)
    yield fastrnn.GRU(3, 4, num_layers=2, bidirectional=True, learn_initial_state=True, **options)
    yield fastrnn.LSTM(3, 4, proj_size=2, peephole=True, dropout=0.5, num_layers=2, **options)
    yield fastrnn.Jordan(3, 4, 3, output_activation="softmax", **options)
    yield fastrnn.Linear(3, 4, **options)
    yield fastrnn.Dropout(0.3, rng=0)
    yield from (fastrnn.LastStep(), fastrnn.MeanPool(), fastrnn.MaxPool())
    yield from (fastrnn.Activation(name) for name in ("sigmoid", "tanh", "relu", "softmax"))


@pytest.mark.parametrize("dtype, scale", [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales])
def test_rounding_to_zero_raises_nothing(dtype, scale):
    """Results under np.seterr(all="raise") are those without."""
    x = (RNG.standard_normal((5, 4, 3)) * scale).astype(dtype)
    classes, truths = RNG.integers(0, 3, (5, 4)), (x > 0).astype(dtype)

    def run():
        results = []
        for layer in layers_of(dtype):
            y, _ = layer.run(x, training=True)
            layer.run_backward(y)
            results += [y, *layer.grads.values()]
            if "state" in layer.accepts and layer.state_spec.directions == 1:
                results.append(layer.stream(4).step(x[0]))
        losses = fastrnn.losses
        for reduction in ("none", "sequence"):
            if scale < 1e300:  # what overflows is told
                results += losses.cross_entropy(x, classes, reduction=reduction)
            results += losses.mse(x, x[::-1].copy(), reduction=reduction)
            results += losses.binary_cross_entropy_with_logits(x, truths, reduction=reduction)
        grads = {"w": x.copy()}
        results += [fastrnn.clip_grad_norm(grads, 1e-30), grads["w"].copy()]
        fastrnn.clip_grad_value(grads, 1e-35)
        results.append(grads["w"])
        return results

    with np.errstate(all="raise"):
        raising = run()
    with np.errstate(all="ignore"):
        expected = run()
    assert len(raising) > 40
    for got, wanted in zip(raising, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("own", [False, True], ids=["compiled", "piecewise"])
def test_generation_and_beams_of_saturated_logits_raise_nothing(own):
    layers = [fastrnn.Embedding(7, 3, rng=0), fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(4, 7, rng=0)]
    layers[2].params["weight"][...] *= 1e4
    model = fastrnn.Sequential(*layers, *([fastrnn.Activation("tanh"), fastrnn.Linear(7, 7, rng=0)] if own else []))
    if own:
        layers[0].params["weight"][...] *= 1e-38
        model[4].params["weight"][...] *= 1e4
    pair = fastrnn.EncoderDecoder(
        fastrnn.Sequential(fastrnn.Embedding(7, 3, rng=0), fastrnn.GRU(3, 4, rng=0)),
        fastrnn.Sequential(fastrnn.Embedding(7, 3, rng=0), fastrnn.GRU(3, 4, rng=0), layers[2]),
        start=1,
        end=2,
    )
    with np.errstate(all="raise"):
        for options in ({}, {"mode": "sample", "rng": 0, "temperature": 1e-3, "top_k": 3}):
            assert model.generate(np.array([1, 2]), 6, **options).shape == (2, 6)
        for mode in ("greedy", "beam"):
            assert pair.generate(np.array([[1], [2], [3]]), steps=4, mode=mode).shape == (1, 4)


def test_conversions_and_references_round_to_zero_in_silence():
    from fastrnn import reference

    tiny = RNG.standard_normal((5, 4, 3)) * 1e-300
    layer, linear = fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(3, 2, rng=0)
    weights = [RNG.standard_normal(shape) * 1e-310 for shape in ((12, 3), (12, 4), (12,), (12,))]
    with np.errstate(all="raise"):
        assert not linear(tiny).any() or linear.params["bias"].any()
        layer(tiny)
        layer.load_state_dict({name: np.full(a.shape, 1e-300) for name, a in layer.params.items()})
        model = fastrnn.Sequential(layer)
        model.params["0.weight_ih_l0"] = np.full((12, 3), 1e-300)
        fastrnn.datasets.mnist()
        for scale in (1, 1e303):
            output, h_n, cache = reference.gru_forward(tiny * scale, None, *weights)
            reference.gru_backward(output, h_n, cache)
    assert not layer.params["weight_ih_l0"].any()


def whole(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_small_results_do_not_keep_large_arrays():
    x = RNG.standard_normal((50, 4, 3)).astype(np.float32)
    for batch_first in (False, True):
        for lengths in (None, np.array([50, 1, 0, 7])):
            steps = x.swapaxes(0, 1) if batch_first else x
            last, _ = fastrnn.LastStep(batch_first=batch_first).run(steps, lengths=lengths)
            assert whole(last).size == last.size
    model = fastrnn.Sequential(fastrnn.GRU(3, 4, rng=0), fastrnn.LastStep())
    y, state = model.run(x)
    assert whole(y).size == y.size and whole(state[0]).size == state[0].size
    (train, _), (test, labels) = fastrnn.datasets.mnist()
    assert len(train) > len(test) and whole(test).size == test.size and whole(labels).size == labels.size
