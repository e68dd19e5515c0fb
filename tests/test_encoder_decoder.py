"""EncoderDecoder: against PyTorch, finite differences and its own parts; bridging; decoding; training; errors.

Letters: N batch, T source steps, T' target steps, D features, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype
from test_custom import ElmanCell

import fastrnn
from fastrnn.datasets import copy_task, dates, reverse_task
from fastrnn.layers import build

N, T, D, H, V = 4, 6, 3, 5, 7
LAYERS = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}


def tokens(rows: int = N, steps: int = T, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, V, (rows, steps))


def coder(kind="gru", width=H, *, writes=False, seed=0, dtype="float64", **options: Any) -> fastrnn.Sequential:
    options = {"batch_first": True} | options
    layers = [
        fastrnn.Embedding(V, D, dtype=dtype, rng=seed),
        LAYERS[kind](D, width, dtype=dtype, rng=seed + 1, **options),
    ]
    return fastrnn.Sequential(*layers, *([fastrnn.Linear(width, V, dtype=dtype, rng=seed + 2)] if writes else []))


def translator(kind="gru", dtype="float64", merge="concat", **options: Any) -> fastrnn.EncoderDecoder:
    wide = H * (2 if options.pop("bidirectional", False) and merge == "concat" else 1)
    both = {"bidirectional": True} if wide != H or merge != "concat" else {}
    return fastrnn.EncoderDecoder(
        coder(kind, dtype=dtype, **options, **both),
        coder(kind, wide, writes=True, seed=5, dtype=dtype, **options),
        start=1,
        end=2,
        merge=merge,
    )


# --- Gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "stacked", "concat", "sum", "mean"])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients(kind, form):
    options = {"num_layers": 2} if form == "stacked" else {}
    if form in ("concat", "sum", "mean"):
        options = {"bidirectional": True, "num_layers": 2, "merge": form}
    model = translator(kind, **options)
    targets = tokens(steps=4, seed=1)
    targets[1, 2:] = -100
    report = fastrnn.check_gradients(model, tokens(), targets=targets, max_entries=10)
    assert list(report.checks) == list(model.params)


def test_gradients_of_vectors_time_major_and_of_other_layers():
    """A decoder of vectors, layers of one's own, an encoder that does not end with the layer that has the state."""
    encoder = fastrnn.Sequential(
        fastrnn.GRU(D, H, dtype="float64", rng=0),
        fastrnn.Recurrent(ElmanCell(H, 4)),
        fastrnn.Linear(4, 2, dtype="float64", rng=1),
        fastrnn.LastStep(),
    )
    decoder = fastrnn.Sequential(
        fastrnn.RNN(2, H, dtype="float64", rng=2),
        fastrnn.GRU(H, 4, dtype="float64", rng=3),
        fastrnn.Linear(4, 2, dtype="float64", rng=4),
    )
    model = fastrnn.EncoderDecoder(encoder, decoder, start=None)
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((T, N, D)), rng.standard_normal((3, N, 2))
    report = fastrnn.check_gradients(model, x, targets=targets, max_entries=10)
    assert list(report.checks) == ["x", *model.params]
    made = model.generate(x, 3, mode="feedback")
    fed = np.concatenate([np.zeros((1, N, 2)), made.swapaxes(0, 1)[:-1]])
    np.testing.assert_allclose(model(x, targets=np.roll(fed, -1, axis=0))[:3], made.swapaxes(0, 1), rtol=1e-11)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", LAYERS)
@every_dtype
def test_agrees_with_torch(dtype, kind, num_layers):
    """Logits and every gradient of the same model, written with torch.nn, from the same weights."""
    torch = pytest.importorskip("torch")
    model = translator(kind, dtype, num_layers=num_layers)
    modules = {}
    for part, wide in (("encoder", H), ("decoder", H)):
        core = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind]
        modules[f"{part}.0"] = torch.nn.Embedding(V, D)
        modules[f"{part}.1"] = core(D, wide, num_layers, batch_first=True)
    modules["decoder.2"] = torch.nn.Linear(H, V)
    for name, module in modules.items():
        module.double().load_state_dict(
            {key[len(name) + 1 :]: torch.tensor(a) for key, a in model.params.items() if key.startswith(name)}
        )
    source, targets = tokens(), tokens(steps=5, seed=1)
    _, state = modules["encoder.1"](modules["encoder.0"](torch.tensor(source)))
    fed = np.concatenate([np.full((N, 1), 1), targets[:, :-1]], axis=1)
    output, _ = modules["decoder.1"](modules["decoder.0"](torch.tensor(fed)), state)
    logits = modules["decoder.2"](output)
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, V), torch.tensor(targets).reshape(-1))
    loss.backward()

    ours = model(source, targets=targets, training=True)
    assert_output_close(ours, logits.detach().numpy(), dtype)
    value, dlogits = fastrnn.losses.cross_entropy(ours, targets)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    assert model.backward(dlogits) is None
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            assert_gradient_close(model.grads[f"{name}.{key}"], parameter.grad.numpy(), dtype, f"{name}.{key}")


# --- What it is made of -----------------------------------------------------------------------------------------------


def test_two_layers_are_one_of_two_levels():
    encoder = coder("lstm", num_layers=2)
    decoder = fastrnn.Sequential(
        fastrnn.Embedding(V, D, dtype="float64"),
        fastrnn.LSTM(D, H, batch_first=True, dtype="float64", rng=3),
        fastrnn.LSTM(H, H, batch_first=True, dtype="float64", rng=4),
        fastrnn.Linear(H, V, dtype="float64"),
    )
    model = fastrnn.EncoderDecoder(encoder, decoder, start=1)
    targets = tokens(steps=3, seed=1)
    _, (_, (h, c)) = encoder.run(tokens())
    fed = np.concatenate([np.ones((N, 1), int), targets[:, :-1]], axis=1)
    state = (None, (h[:1], c[:1]), (h[1:], c[1:]), None)
    np.testing.assert_array_equal(model(tokens(), targets=targets), decoder.run(fed, state)[0])


@pytest.mark.parametrize("merge", ["concat", "sum", "mean"])
def test_directions_are_merged(merge):
    model = translator("gru", bidirectional=True, num_layers=2, merge=merge)
    _, (_, h) = model.encoder.run(tokens())
    forward, backward = h[::2], h[1::2]
    joined = {
        "concat": np.concatenate([forward, backward], axis=2),
        "sum": forward + backward,
        "mean": (forward + backward) / 2,
    }[merge]
    y, _ = model.decoder.run(np.full((N, 1), 1), (None, joined, None))
    np.testing.assert_array_equal(model(tokens(), targets=tokens(steps=1)), y)


def test_padding_is_not_read():
    model = fastrnn.EncoderDecoder(coder(), coder(writes=True, seed=5), start=1, end=2, padding=0)
    source, targets = tokens() % 6 + 1, tokens(steps=3, seed=1)
    source[1, 4:] = source[2, 1:] = source[3] = 0
    lengths = np.array([6, 4, 1, 0])
    logits = model(source, targets=targets)
    np.testing.assert_array_equal(logits, model(source, targets=targets, lengths=lengths))
    for n, length in enumerate(lengths):
        if length:
            alone = model(source[n : n + 1, :length], targets=targets[n : n + 1])
            np.testing.assert_allclose(logits[n], alone[0], rtol=1e-12, atol=1e-14)
    zero = model.decoder(np.concatenate([[1], targets[3, :-1]])[None])
    np.testing.assert_allclose(logits[3], zero[0], rtol=1e-12)
    for mode in ("greedy", "beam"):
        whole = model.generate(source, 5, mode=mode)
        np.testing.assert_array_equal(whole[1], model.generate(source[1:2, :4], 5, mode=mode)[0])


def test_rebuilds():
    model = translator("lstm", bidirectional=True)
    twin = build(model.config())
    twin.load_state_dict(model.state_dict())
    assert (twin.start, twin.end, twin.merge) == (1, 2, "concat")
    np.testing.assert_array_equal(twin.generate(tokens(), 6), model.generate(tokens(), 6))


# --- Decoding ---------------------------------------------------------------------------------------------------------


def test_greedy_writes_what_teacher_forcing_would_say():
    model = translator("gru")
    model.decoder[-1].params["weight"] *= 8
    made = model.generate(tokens(), 8)
    logits = model(tokens(), targets=made)
    ends = np.array([row.index(2) if 2 in row else 8 for row in made.tolist()])
    for n in range(N):
        np.testing.assert_array_equal(made[n, : ends[n] + 1], logits[n].argmax(axis=1)[: ends[n] + 1])
        assert (made[n, ends[n] :] == 2).all()
    np.testing.assert_array_equal(model.generate(tokens(), 8, mode="sample", temperature=0), made)
    np.testing.assert_array_equal(model.generate(tokens(), 8, mode="sample", top_k=1, rng=0), made)


def test_beams_score_what_they_write():
    model = translator("lstm")
    model.decoder[-1].params["weight"] *= 4
    for penalty in (0.0, 1.0):
        made, scores = model.generate(tokens(), 8, mode="beam", beam_size=5, length_penalty=penalty, return_scores=True)
        logits = model(tokens(), targets=made)
        logits -= logits.max(axis=2, keepdims=True)
        logp = np.take_along_axis(logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)), made[:, :, None], axis=2)
        for n, row in enumerate(made.tolist()):
            length = row.index(2) + 1 if 2 in row else 8
            assert scores[n] == pytest.approx(logp[n, :length].sum() / length**penalty, rel=1e-10)


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread():
    """Batches this small are not worth a second one, least of all on a busy machine. Results are the same bits."""
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)
    yield
    fastrnn.set_num_threads(before)


def learner(V_source: int, V_target: int, H: int) -> fastrnn.EncoderDecoder:
    options = {"batch_first": True, "init": "orthogonal", "forget_bias": 1.0}
    return fastrnn.EncoderDecoder(
        fastrnn.Sequential(
            fastrnn.Embedding(V_source, 16, rng=0), fastrnn.LSTM(16, H // 2, bidirectional=True, rng=1, **options)
        ),
        fastrnn.Sequential(
            fastrnn.Embedding(V_target, 16, rng=2),
            fastrnn.LSTM(16, H, rng=3, **options),
            fastrnn.Linear(H, V_target, rng=4),
        ),
        start=1,
        end=2,
        padding=0,
    )


def taught(model, source, targets, lr, epochs, batch_size):
    trainer = fastrnn.Trainer(model, optimizer=fastrnn.Adam(lr=lr), clip_norm=1.0)
    for epoch in range(epochs):
        trainer.optimizer.lr = lr * (1 - epoch / epochs)
        trainer.fit(source, targets, epochs=1, batch_size=batch_size, progress=False)
    return trainer


@pytest.mark.parametrize("task", [copy_task, reverse_task])
def test_learns_to_write(task, tmp_path, one_thread):
    """Over 99% of whole sequences right, of data not trained on; and the file of the trainer writes the same."""
    source, targets = task(3600, 5, 5, rng=0)
    trainer = taught(learner(8, 8, 48), source[:3000], targets[:3000], 1e-2, 4, 16)
    expected = np.where(targets[3000:] < 0, 2, targets[3000:])
    for mode in ("greedy", "beam"):
        written = trainer.model.generate(source[3000:], expected.shape[1], mode=mode, beam_size=2)
        assert (written == expected).all(axis=1).mean() > 0.99
    assert trainer.evaluate(source[3000:], targets[3000:])["accuracy"] > 0.99
    trainer.save(tmp_path / "writer.safetensors")
    loaded = fastrnn.Trainer.load(tmp_path / "writer.safetensors").model
    np.testing.assert_array_equal(loaded.generate(source[:50], 6), trainer.model.generate(source[:50], 6))


def test_learns_to_write_dates(one_thread):
    """Over 99% of dates right that it was not trained on, in all eight forms."""
    data = dates(8500, rng=0)
    model = learner(len(data.source_characters), len(data.target_characters), 96)
    taught(model, data.source[:8000], data.targets[:8000], 8e-3, 3, 32)
    written = data.target_characters.texts(model.generate(data.source[8000:], data.targets.shape[1]))
    assert np.mean([text == right for text, right in zip(written, data.target_texts[8000:])]) > 0.99
    own = ["12 March 2021", "Mar 12, 2021", "Friday, 12 March 2021", "12.03.2021"]
    written = model.generate(data.source_characters.source(own), 12, mode="beam")
    assert data.target_characters.texts(written) == ["2021-03-12"] * 4


# --- Errors -----------------------------------------------------------------------------------------------------------

MAKES = {
    "no layer": (TypeError, "encoder: expected a layer, got int", lambda: (3, coder(writes=True))),
    "layout": (ValueError, "decoder: expected batch_first=True like", lambda: (coder(), coder(batch_first=False))),
    "size": (ValueError, r"decoder: expected states of sizes .*5.* like .*6", lambda: (coder(), coder(width=6))),
    "kind": (ValueError, r"decoder: expected states of sizes \[\(5,\)\]", lambda: (coder(), coder("lstm"))),
    "levels": (ValueError, "decoder: expected states of sizes", lambda: (coder(num_layers=2), coder())),
    "direction": (ValueError, "decoder: expected .* read forward", lambda: (coder(), coder(bidirectional=True))),
    "stateless": (
        ValueError,
        "encoder: expected a layer with a state",
        lambda: (fastrnn.Linear(2, 2), fastrnn.Linear(2, 2)),
    ),
    "time": (
        ValueError,
        "decoder: expected an output at every step",
        lambda: (coder(), fastrnn.Sequential(coder(), fastrnn.LastStep(batch_first=True))),
    ),
}


@pytest.mark.parametrize("error, message, make", MAKES.values(), ids=MAKES)
def test_what_cannot_be_joined(error, message, make):
    with pytest.raises(error, match=message):
        fastrnn.EncoderDecoder(*make(), start=1)


CALLS = {
    "no targets": (ValueError, "targets: expected what the decoder is to write", lambda m: m(tokens())),
    "axes": (ValueError, r"targets: expected shape \(N, T'\)", lambda m: m(tokens(), targets=tokens()[0])),
    "dtype": (TypeError, "targets: expected integer tokens", lambda m: m(tokens(), targets=tokens() * 1.0)),
    "backward": (RuntimeError, "training=True", lambda m: m.backward(np.zeros((N, 3, V)))),
    "mode": (ValueError, "mode: expected another", lambda m: m.generate(tokens(), 3, mode="feedback")),
    "scores": (ValueError, "return_scores: ", lambda m: m.generate(tokens(), 3, return_scores=True)),
    "beams": (ValueError, "beam_size: ", lambda m: m.generate(tokens(), 3, mode="beam", beam_size=0)),
    "predict": (ValueError, "targets: expected what", lambda m: fastrnn.Trainer(m).predict(tokens())),
    "trainer": (
        ValueError,
        "lengths: expected samples of one length",
        lambda m: fastrnn.Trainer(m).fit(tokens(), tokens(), lengths=np.full(N, 3)),
    ),
}


@pytest.mark.parametrize("error, message, call", CALLS.values(), ids=CALLS)
def test_wrong_arguments(error, message, call):
    with pytest.raises(error, match=message):
        call(translator())


@pytest.mark.parametrize("batch_first", [True, False])
def test_nothing_gives_nothing(batch_first):
    """No sources, and targets without a step; both used to be refused."""
    model = translator("lstm", batch_first=batch_first)
    for rows, steps in ((0, 4), (3, 0), (0, 0)):
        source, targets = np.ones((rows, T), int), np.ones((rows, steps), int)
        if not batch_first:
            source, targets = source.T, targets.T
        model.zero_grad()
        logits = model(source, targets=targets, training=True)
        assert logits.shape == (*targets.shape, V)
        model.backward(np.zeros_like(logits))
        assert not any(grad.any() for grad in model.grads.values())
    nobody = np.ones((0, T) if batch_first else (T, 0), int)
    greedy, (beams, scores) = model.generate(nobody, 5), model.generate(nobody, 5, mode="beam", return_scores=True)
    assert greedy.shape == beams.shape == (0, 5) and scores.shape == (0,)
    assert greedy.dtype == model.generate(np.ones((2, T) if batch_first else (T, 2), int), 5).dtype
