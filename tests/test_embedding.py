"""Embedding: gradients as rows, lazy optimisers, padding, pretrained vectors. The dense layer: test_basic_layers.

Letters: V vocabulary, D size of a vector, N tokens.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import assert_gradient_close, every_dtype

import fastrnn
from fastrnn import Embedding, RowGradient, Sequential, Trainer, clip_grad_norm, clip_grad_value
from fastrnn.layers import GRU, Linear, build
from fastrnn.optim import SGD, Adagrad, Adam, AdamW, RMSprop

V, D, N = 50, 7, 40

OPTIMIZERS = [
    lambda: SGD(0.1),
    lambda: SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda: RMSprop(0.01, momentum=0.5),
    lambda: Adagrad(0.1, initial_accumulator_value=0.5),
    lambda: Adam(0.01, weight_decay=0.1),
    lambda: AdamW(0.01),
]
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS, ids=lambda make: repr(make()))


def pair(dtype="float32", **options):
    """The same layer with a dense gradient and with rows."""
    return [Embedding(V, D, sparse=sparse, dtype=dtype, rng=0, **options) for sparse in (False, True)]


def step_once(layer, x, dy, optimizer=None, **options):
    layer.zero_grad()
    layer(x, training=True)
    layer.backward(dy)
    return optimizer and optimizer.step(layer.params, layer.grads, **options)


def tokens_and_gradient(dtype="float32", seed=0, tokens=V, shape=(4, N // 4)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, tokens, shape), rng.standard_normal((*shape, D)).astype(dtype)


@every_dtype
def test_rows_are_one_hot_times_gradient(dtype):
    x, dy = tokens_and_gradient(dtype)
    one_hot = (x[..., None] == np.arange(V)).astype(dtype)
    for layer in pair(dtype):
        np.testing.assert_array_equal(layer(x), one_hot @ layer.params["weight"])
        step_once(layer, x, dy)
        expected = one_hot.reshape(-1, V).T.astype("f8") @ dy.reshape(-1, D).astype("f8")
        assert_gradient_close(np.asarray(layer.grads["weight"]), expected, dtype)
    grad = layer.grads["weight"]
    assert isinstance(grad, RowGradient) and grad.shape == (V, D) and grad.dtype == dtype
    np.testing.assert_array_equal(grad.indices, np.unique(x))
    assert repr(grad) == f"RowGradient({len(np.unique(x))} of 50 rows of 7, {dtype})"


def test_accumulated_rows_have_the_bits_of_the_dense_gradient():
    dense, sparse = pair()
    for seed in range(3):
        x, dy = tokens_and_gradient(seed=seed)
        for layer in (dense, sparse):
            layer(x, training=True)
            layer.backward(dy)
    np.testing.assert_array_equal(np.asarray(sparse.grads["weight"]), dense.grads["weight"])
    sparse.zero_grad()
    assert len(sparse.grads["weight"].indices) == 0 and not np.asarray(sparse.grads["weight"]).any()


@every_dtype
@every_optimizer
def test_a_step_that_sees_all_tokens_is_the_dense_one(make, dtype):
    dense, sparse = pair(dtype)
    optimizers = make(), make()
    for seed in range(3):
        x, dy = tokens_and_gradient(dtype, seed)
        x = np.concatenate([x.reshape(-1), np.arange(V)])
        dy = np.concatenate([dy.reshape(-1, D), np.random.default_rng(9).standard_normal((V, D))]).astype(dtype)
        norms = [
            step_once(layer, x, dy, optimizer, clip_norm=1.0, clip_value=0.2)
            for layer, optimizer in zip((dense, sparse), optimizers)
        ]
        assert norms[0] == pytest.approx(norms[1], rel=1e-12)
        np.testing.assert_allclose(
            sparse.params["weight"], dense.params["weight"], rtol=1e-6 if dtype == "float32" else 1e-14
        )


@every_optimizer
def test_rows_without_a_token_stay(make):
    layer = pair()[1]
    optimizer = make()
    x, dy = tokens_and_gradient(tokens=V)
    step_once(layer, x, dy, optimizer)
    before = {"weight": layer.params["weight"].copy()} | optimizer.state_dict()
    step_once(layer, x % 10, dy, optimizer)
    after = {"weight": layer.params["weight"]} | optimizer.state_dict()
    assert before.pop("step") + 1 == after.pop("step")
    for name, array in before.items():
        np.testing.assert_array_equal(after[name][10:], array[10:], err_msg=name)
        assert (after[name][np.unique(x % 10)] != array[np.unique(x % 10)]).all(), name


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "ours, peer, options",
    [
        (SGD(0.1), "SGD", {"lr": 0.1}),
        (Adagrad(0.1), "Adagrad", {"lr": 0.1}),
        (Adam(0.1, eps=1e-15), "SparseAdam", {"lr": 0.1, "eps": 1e-15}),
    ],
    ids=["sgd", "adagrad", "adam"],
)
def test_lazy_steps_agree_with_torch(ours, peer, options):
    torch = pytest.importorskip("torch")
    module = torch.nn.Embedding(V, D, sparse=True, dtype=torch.float64)
    layer = Embedding(V, D, sparse=True, dtype="float64")
    layer.load_state_dict({"weight": module.weight.detach().numpy()})
    optimizer = getattr(torch.optim, peer)(module.parameters(), **options)
    for seed in range(4):
        x, dy = tokens_and_gradient("float64", seed, tokens=10 + 10 * seed)
        step_once(layer, x, dy, ours)
        optimizer.zero_grad()
        module(torch.tensor(x)).backward(torch.tensor(dy))
        grad = module.weight.grad.coalesce()
        np.testing.assert_array_equal(layer.grads["weight"].indices, grad.indices()[0].numpy())
        np.testing.assert_allclose(layer.grads["weight"].values, grad.values().numpy(), rtol=1e-12, atol=1e-14)
        optimizer.step()
        np.testing.assert_allclose(layer.params["weight"], module.weight.detach().numpy(), rtol=1e-6)


def test_clipping_counts_rows():
    dense, sparse = pair()
    x, dy = tokens_and_gradient()
    for layer in (dense, sparse):
        step_once(layer, x, dy)
    grads = [{"a": np.ones((3, 3), "f4"), "weight": layer.grads["weight"]} for layer in (dense, sparse)]
    norms = [clip_grad_norm(g, 0.5) for g in grads]
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)
    np.testing.assert_array_equal(np.asarray(grads[1]["weight"]), grads[0]["weight"])
    for g in grads:
        clip_grad_value(g, 0.01)
    np.testing.assert_array_equal(np.asarray(grads[1]["weight"]), grads[0]["weight"])
    assert np.abs(grads[1]["weight"].values).max() == np.float32(0.01)


def test_bits_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    x, dy = rng.integers(0, 3000, 4096), rng.standard_normal((4096, 128), np.float32)
    found = []
    try:
        for threads in (1, 2, 3, 8):
            fastrnn.set_num_threads(threads)
            layer, optimizer = Embedding(3000, 128, sparse=True, rng=0), Adam(0.1)
            for _ in range(2):
                step_once(layer, x, dy, optimizer, clip_norm=1.0)
            found.append((layer(x), layer.grads["weight"].values, layer.params["weight"]))
    finally:
        fastrnn.set_num_threads(2)
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_array_equal(a, b)


def test_a_step_touches_no_memory_but_its_rows():
    """What V costs: arrays that are never written are never in memory."""
    resource = pytest.importorskip("resource")
    layer = Embedding(10, 16, sparse=True, rng=0)
    layer.num_embeddings = 4_000_000
    weight = np.zeros((4_000_000, 16), np.float32)  # 256 MB, of which nothing is there yet
    layer._params["weight"] = weight
    layer._grads["weight"] = RowGradient(weight.shape, weight.dtype)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step_once(layer, np.arange(64), np.ones((64, 16), np.float32), Adam())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000
    assert weight[:64].all() and not weight[64].any()


# --- in a model -------------------------------------------------------------------------------------------------------


def make_model(**options):
    return Sequential(Embedding(V, D, rng=0, **options), GRU(D, 6, batch_first=True, rng=1), Linear(6, V, rng=2))


def test_trainer_saves_and_goes_on(tmp_path):
    x = np.random.default_rng(0).integers(0, V, (12, 9))
    trainer = Trainer(make_model(sparse=True), optimizer=AdamW(0.05), clip_norm=1.0)
    history = trainer.fit(x, x, epochs=8, batch_size=4, progress=False)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    trainer.save(tmp_path / "a")
    again = Trainer.load(tmp_path / "a")
    assert isinstance(again.model.grads["0.weight"], RowGradient)
    for t in (trainer, again):
        t.fit(x, x, epochs=1, batch_size=4, progress=False)
    for name, param in trainer.model.params.items():
        np.testing.assert_array_equal(again.model.params[name], param)


def test_gradients_are_checked_as_dense_ones():
    x = np.random.default_rng(0).integers(0, V, (3, 5))
    model = Sequential(Embedding(V, D, sparse=True, dtype="float64", rng=0), Linear(D, 3, dtype="float64", rng=1))
    fastrnn.check_gradients(model, x)


def test_padding_gets_no_gradient():
    torch = pytest.importorskip("torch")
    x, dy = tokens_and_gradient("float64", tokens=8)
    module = torch.nn.Embedding(V, D, padding_idx=3, dtype=torch.float64)
    module(torch.tensor(x)).backward(torch.tensor(dy))
    for layer in pair("float64", padding_idx=3):
        assert not layer.params["weight"][3].any() and layer.params["weight"][2].any()
        layer.load_state_dict({"weight": module.weight.detach().numpy()})
        step_once(layer, x, dy)
        np.testing.assert_allclose(
            np.asarray(layer.grads["weight"]), module.weight.grad.numpy(), rtol=1e-13, atol=1e-14
        )
    assert 3 in x and 3 not in layer.grads["weight"].indices
    assert Embedding(V, D, -1).padding_idx == V - 1 and Embedding(V, D, -1, rng=0).params["weight"][:-1].all()
    for layer in pair(padding_idx=0):  # nothing but padding
        step_once(layer, np.zeros(5, int), np.ones((5, D), "f4"))
        assert not np.asarray(layer.grads["weight"]).any()


@pytest.mark.parametrize("sparse", [False, True])
def test_pretrained_vectors_stay(sparse, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((V, D))
    x = np.random.default_rng(1).integers(0, V, (12, 9))
    for freeze in (True, False):
        layer = Embedding.from_pretrained(vectors, freeze=freeze, sparse=sparse)
        assert layer.trainable != freeze and layer.params["weight"].dtype == np.float64
        model = Sequential(layer, GRU(D, 6, batch_first=True, dtype="float64"), Linear(6, V, dtype="float64"), rng=0)
        np.testing.assert_array_equal(layer.params["weight"], vectors)  # the model's rng draws them no new
        trainer = Trainer(model, optimizer=AdamW(0.05), clip_norm=1.0)
        trainer.fit(x, x, epochs=2, batch_size=4, progress=False)
        assert (layer.params["weight"] == vectors).all() == freeze
        trainer.save(tmp_path / "a")
        assert Trainer.load(tmp_path / "a").model[0].trainable != freeze


def test_vectors_by_word():
    words = {"the": 0, "cat": 1, "sat": 2}
    vectors = SimpleNamespace(vectors=np.arange(6, dtype=np.float32).reshape(3, 2), key_to_index=words)
    plain = Embedding.from_pretrained(vectors)
    np.testing.assert_array_equal(plain([2, 0]), vectors.vectors[[2, 0]])
    layer = Embedding.from_pretrained(vectors, ["<pad>", "sat", "on", "the"], rng=0, padding_idx=0)
    np.testing.assert_array_equal(layer([1, 3]), vectors.vectors[[2, 0]])
    assert layer.num_embeddings == 4 and layer([2]).all() and np.abs(layer([2])).max() < 5 * vectors.vectors.std()
    assert layer.params["weight"].dtype == np.float32


def test_vectors_of_word2vec():
    from fastrnn.words import Vocabulary, Word2Vec

    sentences = [["the", "cat", "sat"], ["the", "dog", "ran"]] * 20
    vectors = Word2Vec(sentences, vector_size=5, min_count=1, epochs=1, workers=1).wv
    vocabulary = Vocabulary().fit(sentences)
    layer = Embedding.from_pretrained(vectors, vocabulary, padding_idx=vocabulary["<pad>"], rng=0)
    assert layer.num_embeddings == len(vocabulary)
    np.testing.assert_array_equal(layer(vocabulary.encode(["cat", "dog"])), np.stack([vectors["cat"], vectors["dog"]]))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Embedding(V, D, V), ValueError, "padding_idx: expected a token 0..49, got 50"),
        (lambda: Embedding(V, D, -V - 1), ValueError, "padding_idx: expected a whole number of at least 0, got -51"),
        (lambda: Embedding(V, D, sparse=1), TypeError, "sparse: expected True or False, got 1"),
        (
            lambda: Embedding.from_pretrained(["a"]),
            TypeError,
            "vectors: expected real numbers (V, D) or word vectors, got <U1",
        ),
        (lambda: Embedding.from_pretrained(np.ones(3)), ValueError, "vectors: expected shape (V, D), got (3,)"),
        (
            lambda: Embedding.from_pretrained(np.ones((3, 2)), ["a"]),
            ValueError,
            "vocabulary: expected None beside a bare array, whose rows have no words, got a vocabulary",
        ),
        (
            lambda: Embedding.from_pretrained(SimpleNamespace(vectors=np.ones((1, 2)), key_to_index={"a": 0}), ["b"]),
            ValueError,
            "vocabulary: expected words among the vectors', got none of them in 1",
        ),
        (lambda: RowGradient((3, 2), "f4").fill(1), ValueError, "value: expected 0 for a gradient of rows, got 1"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


def test_gradients_that_do_not_fit():
    params = {"weight": np.ones((4, 2), np.float32)}
    wrong = RowGradient((5, 2), np.float32)
    with pytest.raises(ValueError, match=r"^grads\['weight'\]: expected shape \(4, 2\), got \(5, 2\)$"):
        SGD().step(params, {"weight": wrong})
    wrong = RowGradient((4, 2), np.float64)
    with pytest.raises(TypeError, match=r"^grads\['weight'\]: expected float32, got float64$"):
        SGD().step(params, {"weight": wrong})
    wrong = RowGradient((4, 2), np.float32)
    wrong.add(np.array([0, 4]), np.ones((2, 2), np.float32))
    with pytest.raises(IndexError, match=r"^grads\['weight'\]: expected rows 0..3, got 0..4$"):
        SGD().step(params, {"weight": wrong})
    assert (params["weight"] == 1).all()


def test_description_rebuilds_the_layer():
    layer = Embedding(V, D, 3, sparse=True, dtype="float64")
    layer.freeze()
    again = build(layer.config())
    assert (again.padding_idx, again.sparse, again.trainable, again.dtype) == (3, True, False, np.float64)
    assert repr(Embedding(V, D)) == "Embedding(num_embeddings=50, embedding_dim=7, dtype='float32')"
    zero = build(Embedding(V, D, 0).config())
    assert zero.padding_idx == 0
