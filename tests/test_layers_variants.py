"""Layers with lengths, resets, projections, peepholes, named activations and learned initial states, and without input.

Against PyTorch where it has them, against a stack built by hand from `fastrnn.reference` where it has not.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, L layers, S directions, k layer, s direction.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from conftest import STATES, assert_output_close, every_cell, every_cell_and_variant, every_dtype
from layer_cases import LAYERS, assert_close, every_layer, joined, parts, random_arguments, run, run_torch, torch_twin
from test_custom import ElmanCell
from test_reference import assert_gradients_match_differences

from fastrnn import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Adam,
    Jordan,
    LastStep,
    Linear,
    Recurrent,
    Sequential,
    Trainer,
    reference,
)

T, N, D, H = 7, 5, 5, 6
LENGTHS = np.array([3, 7, 0, 1, 5])
FORMS = {
    "plain": {},
    "stacked bidirectional": {"num_layers": 2, "bidirectional": True},
    "all of it": {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def make_layer(cell: str, options: dict[str, Any], **form: Any) -> Any:
    """A layer of a case of conftest's tables."""
    options = dict(options)
    proj_size = H // 2 + 1 if options.pop("projection", False) else 0
    return LAYERS[cell](D, H, rng=1, **options, **({"proj_size": proj_size} if proj_size else {}), **form)


def arguments(layer: Any, lengths: Any = None, **kwargs: Any) -> tuple[Any, Any, Any, Any]:
    """As `random_arguments`, with NaN in x and doutput where nobody may look."""
    x, state, doutput, dstate = random_arguments(layer, N=N, **kwargs)
    if lengths is not None:
        for a in (x, doutput):
            (a.swapaxes(0, 1) if layer.batch_first else a)[np.arange(T)[:, None] >= lengths] = np.nan
    return x, state, doutput, dstate


def random_resets(seed: int = 2, share: float = 0.25) -> np.ndarray:
    return np.random.default_rng(seed).random((T, N)) < share


# --- PyTorch ----------------------------------------------------------------------------------------------------------


class Called:
    """A PyTorch module that is called in another way: `run_torch` takes it for a module."""

    def __init__(self, module: Any, call: Any) -> None:
        self.call, self.named_parameters = call, module.named_parameters

    def __call__(self, x: Any, state: Any) -> tuple[Any, Any]:
        return self.call(x, state)


def packed(torch: Any, module: Any, lengths: np.ndarray) -> Called:
    rnn = torch.nn.utils.rnn

    def call(x: Any, state: Any) -> tuple[Any, Any]:
        layout = {"batch_first": module.batch_first}
        sequence = rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False, **layout)
        output, state_n = module(sequence, state)
        return rnn.pad_packed_sequence(output, total_length=T, **layout)[0], state_n

    return Called(module, call)


def reset_by_hand(torch: Any, module: Any, reset_mask: np.ndarray) -> Called:
    """One step at a time, with the state zeroed ahead of the marked ones."""
    keep = torch.tensor(~reset_mask).double()[:, None, :, None]

    def call(x: Any, state: Any) -> tuple[Any, Any]:
        outputs = []
        for t in range(T):
            state = tuple(s * keep[t] for s in state) if isinstance(state, tuple) else state * keep[t]
            output, state = module(x[t : t + 1], state)
            outputs.append(output)
        return torch.cat(outputs), state

    return Called(module, call)


def with_torchs_weights(torch: Any, layer: Any) -> Any:
    module = torch_twin(torch, layer, getattr(torch, layer.dtype.name))
    layer.load_state_dict({name: value.numpy() for name, value in module.state_dict().items()})
    assert list(layer.params) == list(module.state_dict())
    return module.double()


KINDS = {
    "rnn": ("rnn", {}),
    "relu": ("rnn", {"nonlinearity": "relu"}),
    "gru": ("gru", {}),
    "lstm": ("lstm", {}),
    "projected lstm": ("lstm", {"projection": True}),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@every_form
@every_kind
@every_dtype
def test_lengths_agree_with_packed_sequences(dtype, kind, form, torch):
    """PyTorch packs no empty sequence: those are compared with the stack built by hand, below."""
    layer = make_layer(*kind, dtype=dtype, **form)
    module = with_torchs_weights(torch, layer)
    for lengths in ([3, 7, 2, 1, 5], [7, 6, 4, 4, 2], [5, 5, 5, 5, 5], [7] * 5):
        x, state, doutput, dstate = arguments(layer, np.array(lengths))
        expected = run_torch(
            torch, packed(torch, module, lengths), layer, np.nan_to_num(x), state, np.nan_to_num(doutput), dstate
        )
        assert_close(run(layer, x, state, doutput, dstate, lengths=lengths), expected, dtype)
        module.zero_grad()


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@every_form
@every_dtype
def test_projection_agrees_with_torch(dtype, form, batched, torch):
    layer = make_layer("lstm", {"projection": True}, dtype=dtype, **form)
    given = random_arguments(layer, batched=batched)
    expected = run_torch(torch, with_torchs_weights(torch, layer), layer, *given)
    assert_close(run(layer, *given), expected, dtype)


@pytest.mark.parametrize("num_layers", [1, 2])
@every_kind
@every_dtype
def test_resets_agree_with_a_loop_in_torch(dtype, kind, num_layers, torch):
    layer = make_layer(*kind, dtype=dtype, num_layers=num_layers)
    module, mask = with_torchs_weights(torch, layer), random_resets()
    assert mask[0].any()
    given = arguments(layer)
    expected = run_torch(torch, reset_by_hand(torch, module, mask), layer, *given)
    assert_close(run(layer, *given, reset_mask=mask), expected, dtype)


# --- A stack built by hand from the reference -------------------------------------------------------------------------


def by_hand(
    layer: Any,
    cell: str,
    options: dict[str, Any],
    x: Any,
    state: Any,
    doutput: Any,
    dstate: Any,
    *,
    lengths: Any = None,
    reset_mask: Any = None,
) -> dict[str, np.ndarray]:
    """What `run` gives, from `fastrnn.reference` in float64. Resets of a reverse direction come a step later for it."""
    S = 2 if layer.bidirectional else 1
    x, doutput = (np.asarray(a.swapaxes(0, 1) if layer.batch_first else a, np.float64) for a in (x, doutput))
    state, dstate = ([a.astype(np.float64) for a in parts(s)] for s in (state, dstate))
    options = {name: value for name, value in options.items() if name not in ("peephole", "projection")}
    resets = [reset_mask, None]
    if reset_mask is not None and S == 2:
        resets[1] = np.concatenate([reset_mask[1:], np.zeros_like(reset_mask[:1])])
        for n, length in enumerate([T] * N if lengths is None else lengths):
            resets[1][max(length - 1, 0) :, n] = False
    kinds = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    kinds += [kind for kind in ("weight_hr", "weight_peephole") if kind + "_l0" in layer.params]
    y, caches, last = x, [], []
    for k in range(layer.num_layers):
        outputs = []
        for s in range(S):
            names = {kind: f"{kind}_l{k}{'_reverse' * s}" for kind in kinds}
            weights = {
                kind: np.asarray(layer.params[name], np.float64) for kind, name in names.items() if name in layer.params
            }
            output, *final, cache = getattr(reference, cell + "_forward")(
                y,
                *(a[k * S + s] for a in state),
                **dict.fromkeys(("bias_ih", "bias_hh")) | weights,
                **options,
                lengths=lengths,
                reset_mask=resets[s],
                reverse=bool(s),
            )
            outputs.append(output)
            last.append(final)
            caches.append((names, cache))
        y = np.concatenate(outputs, axis=2)
    results = {"output": y} | {f"{name}_n": np.stack(a) for name, a in zip(layer.states, zip(*last))}
    dy, dstate0 = doutput, [np.zeros_like(a) for a in state]
    width = y.shape[2] // S
    for k in reversed(range(layer.num_layers)):
        dx = 0
        for s in range(S):
            names, cache = caches[k * S + s]
            grads = getattr(reference, cell + "_backward")(
                dy[:, :, s * width :][:, :, :width], *(a[k * S + s] for a in dstate), cache
            )
            dx = dx + grads["x"]
            for name, a in zip(layer.states, dstate0):
                a[k * S + s] = grads[name + "0"]
            results |= {"d" + name: grads[kind] for kind, name in names.items() if name in layer.params}
        dy = dx
    results |= {"dx": dy} | {f"d{name}0": a for name, a in zip(layer.states, dstate0)}
    if layer.batch_first:
        results |= {name: results[name].swapaxes(0, 1) for name in ("output", "dx")}
    return results


@every_form
@every_cell_and_variant
def test_every_variant_is_a_stack_of_references(cell, options, form):
    layer = make_layer(cell, options, dtype="float64", **form)
    over_time = {"lengths": LENGTHS, "reset_mask": random_resets()}
    for ways in ((), ("lengths",), ("reset_mask",), ("lengths", "reset_mask")):
        keywords = {name: over_time[name] for name in ways}
        given = arguments(layer, keywords.get("lengths"))
        expected = by_hand(layer, cell, options, *given, **keywords)
        assert_close(run(layer, *given, **keywords), expected, "float64")


@every_cell_and_variant
def test_every_variant_in_single_precision(cell, options):
    layer = make_layer(cell, options, **FORMS["stacked bidirectional"])
    given, keywords = arguments(layer, LENGTHS), {"lengths": LENGTHS, "reset_mask": random_resets()}
    assert_close(run(layer, *given, **keywords), by_hand(layer, cell, options, *given, **keywords), "float32")


@every_cell
def test_lengths_and_resets_of_one_sequence(cell, options):
    """N = 1, with and without the batch axis, of every length."""
    layer = make_layer(cell, options, dtype="float64", **FORMS["stacked bidirectional"])
    x, state, doutput, dstate = random_arguments(layer, N=1)
    mask = random_resets()[:, :1]
    for length in range(T + 1):
        keywords = {"lengths": [length], "reset_mask": mask}
        batch = run(layer, x, state, doutput, dstate, **keywords)
        alone = run(
            layer,
            x[:, 0],
            joined(a[:, 0] for a in parts(state)),
            doutput[:, 0],
            joined(a[:, 0] for a in parts(dstate)),
            **keywords,
        )
        for name, value in alone.items():
            expected = batch[name] if value.shape == batch[name].shape else batch[name].squeeze(1)
            np.testing.assert_array_equal(value, expected, err_msg=name)
        cut = run(layer, x[:length], state, doutput[:length], dstate, reset_mask=mask[:length])
        for name, value in batch.items():
            if name in ("output", "dx"):
                assert not value[length:].any()
                value = value[:length]
            assert_output_close(value, cut[name], "float64", name)


# --- What a reset means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@every_cell
def test_resets_cut_a_sequence_into_sequences_of_their_own(cell, options, bidirectional):
    """The pieces between boundaries, each run alone: the forward direction enters the first piece with the state that
    is given and leaves the last one with state_n, the reverse direction the other way round."""
    S, L = 1 + bidirectional, 2
    layer = make_layer(cell, options, dtype="float64", num_layers=L, bidirectional=bidirectional)
    mask = random_resets(seed=6)
    mask[0, :2] = True, False
    x, state, doutput, dstate = arguments(layer)
    actual = run(layer, x, state, doutput, dstate, lengths=LENGTHS, reset_mask=mask)
    summed = {"d" + name: np.zeros_like(param) for name, param in layer.params.items()}
    pieces_seen = 0
    for n, length in enumerate(LENGTHS):
        starts = [0] + [t for t in range(1, length) if mask[t, n]]
        pieces_seen += len(starts)
        for start, stop in zip(starts, [*starts[1:], length]):
            first, last = start == 0, stop == length
            given = first and not (length and mask[0, n]), last  # which directions start from the state
            taken = last, first  # whose final states are those of the sequence
            rows = [slice(s, None, S) for s in range(S)]

            def of_this_piece(whole: Any, which: tuple[bool, bool]) -> Any:
                part = [np.zeros((L * S, whole[0].shape[2])) for _ in whole]
                for zero, a in zip(part, whole):
                    for s in range(S):
                        zero[rows[s]] = which[s] * a[rows[s], n]
                return joined(part)

            piece = run(
                layer,
                x[start:stop, n],
                of_this_piece(parts(state), given),
                doutput[start:stop, n],
                of_this_piece(parts(dstate), taken),
            )
            for name in ("output", "dx"):
                assert_output_close(actual[name][start:stop, n], piece[name], "float64", name)
            for s in range(S):
                for name in STATES[cell]:
                    if taken[s]:
                        assert_output_close(actual[name + "_n"][rows[s], n], piece[name + "_n"][rows[s]], "float64")
                    if (first, last)[s]:
                        expected = given[s] * piece[f"d{name}0"][rows[s]]
                        assert_output_close(actual[f"d{name}0"][rows[s], n], expected, "float64")
            for name, total in summed.items():
                total += piece[name]
    assert pieces_seen > N
    for name, total in summed.items():
        np.testing.assert_allclose(actual[name], total, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_reset_mask_has_time_first_in_every_layout(batch_first):
    layers = [make(D, D, batch_first=batch_first, rng=0) for make in (RNN, GRU, LSTM)]
    layers.append(Jordan(D, H, D, batch_first=batch_first, rng=0))
    layers.append(Recurrent(ElmanCell(D, D, dtype="float32"), batch_first=batch_first))
    x = np.random.default_rng(0).standard_normal((N + 1, T, D)).astype(np.float32)
    x, mask = x if batch_first else x.swapaxes(0, 1), np.zeros((T, N + 1), bool)
    mask[3, 1] = True
    for layer in (*layers, Sequential(*layers)):
        y, z = (layer.run(x, reset_mask=flags)[0] for flags in (mask, np.zeros_like(mask)))
        differs = (y != z).any(axis=2)
        assert differs.any() and np.argwhere(differs if batch_first else differs.T)[0].tolist() == [1, 3], layer
        with pytest.raises(ValueError, match=r"reset_mask: expected shape \(7, 6\) = \(T, N\), got \(6, 7\)"):
            layer.run(x, reset_mask=mask.T)


# --- Learned initial states, steps without input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        RNN(2, 3, 2, bidirectional=True, learn_initial_state=True, dtype="f8", rng=1),
        GRU(2, 3, reset_after=False, batch_first=True, learn_initial_state=True, dtype="f8", rng=2),
        LSTM(2, 3, proj_size=2, peephole=True, bidirectional=True, learn_initial_state=True, dtype="f8", rng=3),
    ],
    ids=repr,
)
def test_learned_initial_state(layer):
    """Finite differences of every parameter, over lengths and resets; zeros at first; a state that is given wins."""
    rng = np.random.default_rng(3)
    lengths, mask = [3, 4], np.zeros((4, 2), bool)
    mask[[0, 2], [0, 1]] = True  # sequence 0 starts with a reset, so its initial state does not matter forwards
    lead = (2, 4) if layer.batch_first else (4, 2)
    x = rng.standard_normal((*lead, 2))
    starts = {name for name in layer.params if name.startswith("initial")}
    assert starts == {f"initial_{s}" for s in layer.states}
    for name in starts:
        assert not layer.params[name].any()
        layer.params[name][...] = rng.standard_normal(layer.params[name].shape)
    output, state_n = layer(x, lengths=lengths, reset_mask=mask, training=True)
    doutput, dstate = rng.standard_normal(output.shape), [rng.standard_normal(a.shape) for a in parts(state_n)]

    def loss(inputs: dict[str, np.ndarray]) -> float:
        layer.load_state_dict({name: inputs[name] for name in layer.params})
        output, state_n = layer(inputs["x"], lengths=lengths, reset_mask=mask)
        return (output * doutput).sum() + sum((s * d).sum() for s, d in zip(parts(state_n), dstate))

    layer.zero_grad()
    dx, _ = layer.backward(doutput, joined(dstate))
    inputs = {"x": x} | layer.state_dict()
    grads = {"x": dx} | {name: grad.copy() for name, grad in layer.grads.items()}
    assert_gradients_match_differences(loss, inputs, grads)

    layer.load_state_dict({name: inputs[name] for name in layer.params})
    same = joined(np.repeat(layer.params[f"initial_{s}"][:, None], 2, axis=1) for s in layer.states)
    np.testing.assert_array_equal(layer(x, same)[0], layer(x)[0])
    layer.zero_grad()
    layer(x, same, training=True)
    layer.backward(doutput)
    assert not any(layer.grads[name].any() for name in starts)


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@every_form
@every_layer
def test_steps_without_input(kind, form, batched):
    """s_t = f(s_{t-1}): as with an input of zeros, but no input and no gradient for its weights."""
    layer = LAYERS[kind](D, H, dtype="f8", rng=1, **form)
    x, state, doutput, dstate = random_arguments(layer, batched=batched, N=N)
    keywords = {"lengths": LENGTHS, "reset_mask": random_resets()} if batched else {}
    expected = run(layer, np.zeros_like(x), state, doutput, dstate, **keywords)
    actual = run(layer, None, state, doutput, dstate, steps=T, **keywords)
    assert actual.pop("dx") is None
    del expected["dx"]
    assert_close(actual, expected, "float64")
    S = 2 if layer.bidirectional else 1
    assert not any(layer.grads["weight_ih_l0" + suffix].any() for suffix in ("", "_reverse")[:S])
    output, state_n = layer(None, steps=3)
    assert output.shape == ((1, 3, S * H) if layer.batch_first else (3, 1, S * H))
    assert all(a.shape == (layer.num_layers * S, 1, H) for a in parts(state_n))


# --- Sequential and Trainer -------------------------------------------------------------------------------------------


def ragged(seed: int, count: int, longest: int = 9) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sequences of differing length and boundaries within them."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((length, 2)).astype(np.float32) for length in rng.integers(2, longest + 1, count)]
    return x, [rng.random(len(sequence)) < 0.3 for sequence in x]


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
def test_a_trainer_gives_each_sequence_what_it_would_get_alone(batch_first):
    model = Sequential(
        LSTM(2, 6, 2, bidirectional=True, batch_first=batch_first, rng=0),
        Activation("tanh"),
        GRU(12, 5, bidirectional=True, batch_first=batch_first, rng=1),
        Linear(10, 3, rng=2),
    )
    x, masks = ragged(1, 11)
    outputs = Trainer(model, loss="mse").predict(x, batch_size=4, reset_mask=masks)
    for sequence, mask, output in zip(x, masks, outputs, strict=True):
        starts = [0, *(np.flatnonzero(mask[1:]) + 1), len(sequence)]
        alone = [model(sequence[start:stop]) for start, stop in itertools.pairwise(starts)]
        assert_output_close(output, np.concatenate(alone), "float32")


@pytest.mark.parametrize("cell", [RNN, GRU, LSTM])
def test_a_bidirectional_trainer_learns_what_only_resets_can_tell(cell):
    """Each step is asked for the sign of the first number and of the last one of its own piece."""

    def targets(x: list[np.ndarray], masks: list[np.ndarray]) -> list[np.ndarray]:
        answers = []
        for sequence, mask in zip(x, masks):
            piece = np.concatenate([[0], np.cumsum(mask[1:])])
            first, last = (np.searchsorted(piece, piece, side=side) for side in ("left", "right"))
            answers.append(2 * (sequence[first, 0] > 0) + (sequence[last - 1, 0] > 0))
        return answers

    (x, masks), (xv, masks_v) = ragged(2, 300, 5), ragged(3, 60, 5)
    model = Sequential(cell(2, 24, bidirectional=True, rng=0), Linear(48, 4, rng=1))
    trainer = Trainer(model, optimizer=Adam(lr=0.02), clip_norm=1.0)
    y, yv = targets(x, masks), targets(xv, masks_v)
    trainer.fit(x, y, epochs=10, batch_size=20, reset_mask=masks, progress=False)
    assert trainer.evaluate(xv, yv, reset_mask=masks_v)["accuracy"] > 0.9
    assert trainer.evaluate(xv, yv)["accuracy"] < 0.75


def test_last_step_of_a_bidirectional_layer_follows_the_lengths():
    model = Sequential(GRU(2, 4, bidirectional=True, rng=0), LastStep())
    x, _ = ragged(4, 6)
    padded = np.full((9, 6, 2), np.nan, np.float32)
    for n, sequence in enumerate(x):
        padded[: len(sequence), n] = sequence
    y = model(padded, lengths=[len(sequence) for sequence in x])
    for row, sequence in zip(y, x):
        assert_output_close(row, model(sequence), "float32")


# --- Errors -----------------------------------------------------------------------------------------------------------

MASK = np.zeros((T, N), bool)
ONE = np.zeros((T, D), np.float32)


@pytest.mark.parametrize(
    "keywords, error, message",
    [
        ({"lengths": [1, 2]}, ValueError, r"lengths: expected shape \(5,\).*, got \(2,\)"),
        ({"lengths": 3}, ValueError, r"lengths: expected shape \(5,\).*, got \(\)"),
        ({"lengths": [1, 2, 3, 4, 8]}, ValueError, "lengths: expected .*7, got 8"),
        ({"lengths": [1, 2, 3, 4, -1]}, ValueError, "lengths: expected .*7, got -1"),
        ({"lengths": [1.0, 2, 3, 4, 5]}, TypeError, "lengths: expected integers, got float64"),
        ({"lengths": [True] * 5}, TypeError, "lengths: expected integers, got bool"),
        ({"lengths": "short"}, TypeError, "lengths: expected integers, got <U5"),
        ({"reset_mask": MASK.T.copy()}, ValueError, r"reset_mask: expected shape \(7, 5\) = \(T, N\), got \(5, 7\)"),
        ({"reset_mask": MASK.astype(int)}, TypeError, "reset_mask: expected a NumPy array of bool, got int64"),
        ({"reset_mask": MASK.tolist()}, TypeError, "reset_mask: expected a NumPy array of bool, got list"),
        ({"steps": 3}, ValueError, "steps: expected a number of steps with x None, and None with an x"),
        ({"x": None}, ValueError, "steps: expected a number of steps with x None, and None with an x"),
        ({"x": None, "steps": 0}, ValueError, "steps: expected a whole number of at least 1, got 0"),
        ({"x": None, "steps": 2.5}, TypeError, "steps: expected a whole number, got 2.5"),
        ({"x": None, "steps": 3, "lengths": [4]}, ValueError, "lengths: expected .*3, got 4"),
        ({"x": None, "steps": 3, "state": [[0.0] * H]}, TypeError, "state: expected a NumPy array, got a list of 1"),
        (
            {"x": None, "steps": 3, "state": np.zeros((9, H), "f4")},
            ValueError,
            r"state: expected shape .*, got \(9, 6\)",
        ),
        ({"x": ONE, "lengths": [3, 3]}, ValueError, r"lengths: expected shape \(1,\).*, got \(2,\)"),
        ({"x": ONE, "reset_mask": MASK[:, 0]}, ValueError, r"reset_mask: expected shape \(7, 1\).*, got \(7,\)"),
    ],
)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
def test_errors_name_the_argument(bidirectional, keywords, error, message):
    layer = GRU(D, H, bidirectional=bidirectional)
    keywords = {"x": np.zeros((T, N, D), np.float32)} | keywords
    with pytest.raises(error, match=f"^{message}$"):
        layer(**keywords)
    if "lengths" in keywords and "steps" not in keywords:
        resets = np.zeros((T, keywords["x"].shape[1] if keywords["x"].ndim == 3 else 1), bool)
        with pytest.raises(error, match=f"^{message}$"):
            layer(**keywords, reset_mask=resets)


@pytest.mark.parametrize("state", [(), [], np.zeros((1, N, H), "f4"), (np.zeros((1, N, H), "f4"),)])
def test_a_state_of_the_wrong_kind_without_input(state):
    with pytest.raises(TypeError, match=r"^state: expected a tuple \(h, c\), got "):
        LSTM(D, H)(None, state, steps=3)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"proj_size": H}, ValueError, "proj_size: expected less than hidden_size, 6, got 6"),
        ({"proj_size": -1}, ValueError, "proj_size: expected a whole number of at least 0, got -1"),
        ({"proj_size": 1.5}, TypeError, "proj_size: expected a whole number, got 1.5"),
        ({"cell_clip": 0}, ValueError, "cell_clip: expected a positive number, got 0"),
        ({"cell_clip": float("nan")}, ValueError, "cell_clip: expected a positive number, got nan"),
        ({"cell_clip": "3"}, TypeError, "cell_clip: expected a positive number, got '3'"),
        ({"gate_activation": "tanh"}, ValueError, "gate_activation: expected one of 'sigmoid', .*, got 'tanh'"),
        ({"activation": "elu"}, ValueError, "activation: expected one of 'tanh', .*, got 'elu'"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        LSTM(D, H, **options)
    if not {"proj_size", "cell_clip"} & set(options):
        with pytest.raises(error, match=f"^{message}$"):
            GRU(D, H, **options)
