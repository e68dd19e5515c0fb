"""generate, the choice of tokens and beam search: against loops over whole sequences, brute force and statistics.

Letters: N batch, T time steps, D features, V vocabulary, B beams.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import every_dtype

import fastrnn
from fastrnn.streaming.decode import beam_search, log_softmax, sample

N, V, H = 3, 6, 8
SEED = 9  # of a model that does not say the same all the time


def language_model(batch_first=True, dtype="float64", layers=2):
    return fastrnn.Sequential(
        fastrnn.Embedding(V, 4, dtype=dtype),
        fastrnn.LSTM(4, H, layers, batch_first=batch_first, dtype=dtype),
        fastrnn.Linear(H, V, dtype=dtype),
        rng=SEED,
    )


def sharpen(model, factor=8.0):
    """Logits far apart, so that what comes next depends on what came before."""
    model[-1].params["weight"] *= factor
    model[0].params["weight"] *= 3
    return model


# --- generate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [True, False])
@every_dtype
def test_greedy_is_the_argmax_of_the_whole_sequence_so_far(dtype, batch_first):
    model = sharpen(language_model(batch_first, dtype))
    prompt = np.random.default_rng(0).integers(0, V, (N, 4))
    tokens = model.generate(prompt, 7)
    assert tokens.shape == (N, 7) and tokens.dtype.kind == "i" and len(np.unique(tokens)) > 2
    read = prompt
    for t in range(7):
        logits = model(read if batch_first else read.T)
        np.testing.assert_array_equal(tokens[:, t], (logits[:, -1] if batch_first else logits[-1]).argmax(axis=1))
        read = np.concatenate([read, tokens[:, t : t + 1]], axis=1)
    np.testing.assert_array_equal(model.generate(prompt[:, 0], 5), model.generate(prompt[:, :1], 5))


def test_goes_on_from_the_state_returned():
    model = sharpen(language_model())
    whole = model.generate([1, 2, 3], 9)
    first, state = model.generate([1, 2, 3], 4, return_state=True)
    np.testing.assert_array_equal(np.concatenate([first, model.generate(first[:, -1], 5, state)], axis=1), whole)


def test_feedback_reads_its_own_outputs():
    model = fastrnn.Sequential(fastrnn.GRU(2, H, dtype="float64", rng=0), fastrnn.Linear(H, 2, dtype="float64", rng=1))
    start = np.random.default_rng(0).standard_normal((N, 3, 2))
    made = model.generate(start, 5, mode="feedback")
    assert made.shape == (N, 5, 2)
    read = np.concatenate([start, made[:, :-1]], axis=1).swapaxes(0, 1)
    np.testing.assert_allclose(model(read)[2:].swapaxes(0, 1), made, rtol=1e-12)
    np.testing.assert_allclose(model.generate(start[:, 0], 2, mode="feedback")[:, 0], model(start.swapaxes(0, 1))[0])


def test_sampled_tokens_have_the_models_probabilities():
    model = fastrnn.Sequential(fastrnn.Embedding(V, 4, rng=0), fastrnn.Linear(4, V, rng=1))
    start = np.full(4000, 2)
    logits = model(np.array([[2]]))[0, 0].astype(float)
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, 3), (0.0, None)):
        tokens = model.generate(start, 1, mode="sample", temperature=temperature, top_k=top_k, rng=0)[:, 0]
        kept = np.argsort(-logits)[: top_k or V] if temperature else [logits.argmax()]
        p = np.zeros(V)
        p[kept] = np.exp(logits[kept] / (temperature or 1))
        np.testing.assert_allclose(np.bincount(tokens, minlength=V) / 4000, p / p.sum(), atol=0.03)
        assert set(tokens) <= set(np.asarray(kept).tolist())


def test_sampling_is_repeatable_and_moves_on():
    model = language_model()
    one, other = (model.generate([1, 2], 12, mode="sample", rng=3) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(model.generate([1, 2], 12, mode="sample", rng=rng), one)
    assert (model.generate([1, 2], 12, mode="sample", rng=rng) != one).any()


def test_never_draws_what_has_no_probability():
    logits = np.array([[0.0, -np.inf, 0.0, -np.inf]] * 2000)
    assert set(sample(logits, np.random.default_rng(0).random(2000))) == {0, 2}


def test_what_comes_after_the_end_is_the_end():
    model = sharpen(language_model())
    free = model.generate([0, 1, 2, 3], 12, mode="sample", rng=0)
    ended = model.generate([0, 1, 2, 3], 12, mode="sample", rng=0, end=4)
    at = [row.index(4) if 4 in row else 12 for row in free.tolist()]
    assert min(at) < 6 and len(set(at)) > 1
    for row, one, n in zip(ended, free, at):
        np.testing.assert_array_equal(row[:n], one[:n])
        assert (row[n:] == 4).all()


class Plain(fastrnn.Linear):
    """A Linear that the compiled chain does not know."""

    def compile_into(self, builder):
        return False


@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "sample"}, {"mode": "sample", "top_k": 2, "temperature": 0.7}, {"mode": "sample", "end": 4}],
    ids=repr,
)
@every_dtype
def test_compiled_and_step_by_step_make_the_same(dtype, options):
    model = sharpen(language_model(dtype=dtype))
    plain = Plain(H, V, dtype=dtype)
    plain.load_state_dict(model[-1].params)
    other = fastrnn.Sequential(*model.layers[:-1], plain)
    prompt = np.random.default_rng(0).integers(0, V, (N, 3))
    compiled, state = model.generate(prompt, 30, rng=1, return_state=True, **options)
    stepwise, other_state = other.generate(prompt, 30, rng=1, return_state=True, **options)
    np.testing.assert_array_equal(compiled, stepwise)
    if "end" not in options:
        for a, b in zip(state[1], other_state[1]):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_compiled_and_step_by_step_feedback():
    layers = [fastrnn.GRU(2, H, dtype="float64", rng=0), fastrnn.Linear(H, 2, dtype="float64", rng=1)]
    plain = Plain(H, 2, dtype="float64")
    plain.load_state_dict(layers[1].params)
    start = np.random.default_rng(0).standard_normal((N, 2))
    compiled = fastrnn.Sequential(*layers).generate(start, 9, mode="feedback")
    stepwise = fastrnn.Sequential(layers[0], plain).generate(start, 9, mode="feedback")
    np.testing.assert_allclose(stepwise, compiled, rtol=1e-12)


WRONG = {
    "start dtype": (TypeError, "start: expected integer tokens", {"start": np.ones(3)}),
    "start axes": (ValueError, "start: expected shape", {"start": np.ones((1, 2, 3), int)}),
    "empty": (ValueError, "start: expected shape", {"start": np.ones((3, 0), int)}),
    "vectors": (TypeError, "start: expected vectors", {"mode": "feedback"}),
    "token": (IndexError, r"start: expected tokens 0\.\.5, got", {"start": np.array([6])}),
    "end type": (TypeError, "end: expected a whole number, got 'x'", {"end": "x"}),
    "end size": (ValueError, "end: expected a whole number of at least 0, got -1", {"end": -1}),
    "mode": (ValueError, "mode: expected one of 'greedy', 'sample', 'feedback'", {"mode": "beam"}),
    "steps": (ValueError, "steps: expected", {"steps": 0}),
    "temperature": (ValueError, "temperature: expected", {"temperature": -1.0}),
    "top_k": (ValueError, "top_k: expected", {"top_k": 0}),
    "rng": (TypeError, "rng: expected", {"mode": "sample", "rng": "seed"}),
    "end": (ValueError, "end: expected None", {"mode": "feedback", "end": 1}),
}


@pytest.mark.parametrize("error, message, options", WRONG.values(), ids=WRONG)
def test_wrong_arguments(error, message, options):
    with pytest.raises(error, match=message):
        language_model().generate(**({"start": np.array([1]), "steps": 2} | options))


def test_the_chain_looks_at_what_it_is_given():
    stream = language_model().stream(N)
    for y, uniform, error, message in (
        (np.zeros(V), None, ValueError, r"^y: expected shape \(3, 6\)"),
        (np.zeros((N, V), np.float32), None, TypeError, "^y: expected float64"),
        (np.zeros((N, V)), np.zeros(N), ValueError, r"^uniform: expected shape \(4, 3\)"),
    ):
        with pytest.raises(error, match=message):
            stream.generate(y, 4, uniform, 1.0, 0, -1)


def test_start_in_another_dtype_is_named():
    with pytest.raises(
        TypeError, match=r"^start: expected float32 like weight_ih, got float64; .astype\(np.float32\) converts$"
    ):
        fastrnn.Sequential(fastrnn.GRU(2, H), fastrnn.Linear(H, 2)).generate(np.zeros((1, 2)), 3, mode="feedback")


def test_refuses_a_model_without_outputs_at_every_step():
    model = fastrnn.Sequential(fastrnn.Embedding(V, 4), fastrnn.GRU(4, H), fastrnn.LastStep(), fastrnn.Linear(H, V))
    with pytest.raises(ValueError, match="model: expected one with an output at every step"):
        model.generate([1], 3)


# --- Beam search ------------------------------------------------------------------------------------------------------


def random_step(vocabulary, seed):
    """Logits that depend on all tokens so far, by a state that is a hash of them, batch in axis 1."""

    table = 2 * np.random.default_rng(seed).standard_normal((997, vocabulary))

    def step(tokens, state):
        code = (state[0] * 31 + tokens + 1) % 997
        return table[code], code[None]

    return step


def every_sequence(step, row, steps, vocabulary, end, penalty):
    """All sequences that end, or have all steps, with their scores, best first."""
    found = []
    for T in range(1, steps + 1):
        for tokens in itertools.product(range(vocabulary), repeat=T):
            if end in tokens[:-1] or (steps > T and tokens[-1] != end):
                continue
            state, last, total = np.array([[row]]), 0, 0.0
            for token in tokens:
                logits, state = step(np.array([last]), state)
                total, last = total + log_softmax(logits)[0, token], token
            found.append((total / T**penalty, tokens))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 0.6])
@pytest.mark.parametrize("end", [None, 2])
def test_a_wide_beam_finds_the_best_of_all_sequences(end, penalty):
    steps, vocabulary = 4, 3
    for seed in range(3):
        step = random_step(vocabulary, seed)
        tokens, scores = beam_search(
            step,
            np.zeros(2, int),
            np.array([[5, 7]]),
            steps,
            beam_size=vocabulary**steps,
            end=end,
            length_penalty=penalty,
        )
        for n, row in enumerate([5, 7]):
            score, best = every_sequence(step, row, steps, vocabulary, end, penalty)[0]
            assert scores[n] == pytest.approx(score, rel=1e-12)
            assert tokens[n, : len(best)].tolist() == list(best) and (tokens[n, len(best) :] == end).all()


def plain_beam_search(step, row, steps, B, end, penalty):
    """One row, with lists, and without stopping early."""
    going, ended = [(0.0, (), np.array([[row]]))], []
    for _ in range(steps):
        candidates = []
        for total, tokens, state in going:
            logits, after = step(np.array(tokens[-1:] or (0,)), state)
            logp = log_softmax(logits)[0]
            candidates += [(total + logp[token], (*tokens, token), after) for token in range(len(logp))]
        candidates.sort(key=lambda candidate: -candidate[0])
        # What ends does not take the place of what goes on, but only the best 2B are looked at.
        ended += [c for c in candidates[: 2 * B] if c[1][-1] == end]
        going = [c for c in candidates if c[1][-1] != end][:B]
    return max((total / len(tokens) ** penalty, tokens) for total, tokens, _ in ended + going)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("B", [1, 2, 3, 7])
def test_narrow_beams_against_a_plain_search(B, penalty):
    for seed in range(6):
        step, rows = random_step(5, seed), [2, 4, 8]
        made, scores = beam_search(
            step, np.zeros(3, int), np.array([rows]), 5, beam_size=B, end=1, length_penalty=penalty
        )
        for n, row in enumerate(rows):
            score, tokens = plain_beam_search(step, row, 5, B, 1, penalty)
            assert scores[n] == pytest.approx(score, rel=1e-12)
            assert made[n].tolist() == [*tokens, *[1] * (5 - len(tokens))]


def test_one_beam_is_greedy():
    model = sharpen(language_model(layers=1))

    def step(tokens, state):
        y, state = model.run(tokens[:, None], state)
        return y[:, 0], state

    tokens, _ = beam_search(step, np.arange(V), None, 9, beam_size=1, end=None)
    np.testing.assert_array_equal(tokens, model.generate(np.arange(V), 9))


def test_rows_do_not_see_each_other_and_more_beams_do_not_worsen():
    step = random_step(5, 1)
    states = np.array([[3, 9, 27, 81]])
    scores = []
    for B in (1, 2, 4, 8):
        tokens, together = beam_search(step, np.zeros(4, int), states, 6, beam_size=B, end=0)
        for n in range(4):
            alone, score = beam_search(step, np.zeros(1, int), states[:, n : n + 1], 6, beam_size=B, end=0)
            np.testing.assert_array_equal(alone[0], tokens[n])
            assert score[0] == together[n]
        scores.append(together.mean())
    assert scores[-1] > scores[0]
