"""The trainer on sequences with resets, and on pieces of time of sequences of differing length.

Letters: N samples, T time steps, T_i those of sample i, D input size, H hidden size, M outputs, V vocabulary.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from batch_cases import (
    LENGTHS,
    N,
    assert_logs_close,
    assert_params_close,
    both,
    every_layout,
    every_pool,
    model,
    padded,
    sequences,
    trained,
)
from conftest import assert_gradient_close

from fastrnn import losses, optim
from fastrnn.trainer import Trainer
from fastrnn.trainer.bptt import BPTT
from fastrnn.trainer.checkpointing import CheckpointedBPTT
from fastrnn.trainer.data import Batch, Data
from fastrnn.trainer.objective import Objective


@both
@every_layout
@pytest.mark.parametrize("ragged", [True, False])
def test_resets_cut_a_sequence_into_several(ragged, batch_first, bidirectional):
    """One long sequence with resets trains and predicts as the sequences it was made of."""
    x, y, _ = sequences()
    groups = [[0, 1, 2], [3, 4], [5, 6]]
    joint_x, joint_y = ([np.concatenate([a[i] for i in group]) for group in groups] for a in (x, y))
    resets = []
    for group in groups:
        mask = np.zeros(sum(LENGTHS[i] for i in group), bool)
        mask[np.cumsum([0, *(LENGTHS[i] for i in group[:-1])])] = True
        resets.append(mask)
    apart, joint = (Trainer(model(batch_first=batch_first, bidirectional=bidirectional)) for _ in range(2))
    lengths = None if ragged else [len(sequence) for sequence in joint_x]
    data = (joint_x, joint_y) if ragged else (padded(joint_x), padded(joint_y))
    resets = resets if ragged else padded(resets)
    logs = [
        trained(apart, x, y, epochs=2, batch_size=N, shuffle=False),
        trained(joint, *data, epochs=2, batch_size=3, shuffle=False, lengths=lengths, reset_mask=resets),
    ]
    assert_params_close(apart.model, joint.model)
    assert_logs_close(*logs)
    assert_logs_close(apart.evaluate(x, y), joint.evaluate(*data, lengths=lengths, reset_mask=resets))
    outputs = joint.predict(data[0], 2, lengths=lengths, reset_mask=resets)
    got = np.concatenate([row[: len(sequence)] for row, sequence in zip(outputs, joint_x)])
    np.testing.assert_allclose(got, np.concatenate(apart.predict(x)), rtol=0, atol=1e-12)


@every_pool
@pytest.mark.parametrize("options", [{"checkpoint_every": 2}, {"checkpoint_every": 5}, {"tbptt": 30}], ids=repr)
def test_pieces_of_time_with_resets(pool, options):
    x, steps, classes = sequences()
    if pool is not None and "tbptt" in options:
        pytest.skip("tbptt needs an output at each step")
    resets = [np.random.default_rng(n).random(n) < 0.3 for n in LENGTHS]
    y = steps if pool is None else classes
    plain, other = Trainer(model(pool)), Trainer(model(pool), **options)
    logs = [trained(trainer, x, y, epochs=2, batch_size=3, reset_mask=resets) for trainer in (plain, other)]
    assert_params_close(plain.model, other.model)
    assert_logs_close(*logs)
    without = Trainer(model(pool))
    trained(without, x, y, epochs=2, batch_size=3)
    assert np.abs(without.model.params["0.weight_hh_l0"] - plain.model.params["0.weight_hh_l0"]).max() > 1e-6


def test_resets_in_a_stateful_fit_begin_a_sequence_anew():
    """Row 0 goes on through three batches; row 1 begins a new sequence in the third."""
    x, y, _ = sequences([4] * 6)
    x, y = np.stack(x), np.stack(y)
    resets = np.zeros((6, 4), bool)
    resets[5, 0] = True
    options = {"optimizer": optim.SGD(lr=0.0), "stateful": True}
    stateful = Trainer(model(), **options)
    loss = trained(stateful, x, y, batch_size=2, reset_mask=resets)["loss"]
    row, first, second = (np.concatenate(a)[None] for a in (x[::2], x[1:4:2], x[5:]))
    targets = [np.concatenate(a)[None] for a in (y[::2], y[1:4:2], y[5:])]
    parts = [Trainer(model()).evaluate(*part)["loss"] * part[1].size for part in zip((row, first, second), targets)]
    np.testing.assert_allclose(loss, [sum(parts) / y.size], rtol=1e-10)


# --- Pieces of time with lengths --------------------------------------------------------------------------------------


@every_pool
@every_layout
@pytest.mark.parametrize("every", [1, 2, 4])
def test_segments_with_lengths(pool, batch_first, every):
    x, steps, classes = sequences([*LENGTHS, 0])
    results = []
    for k in (None, every):
        propagation = BPTT(model(pool, batch_first=batch_first), Objective("cross_entropy"))
        batch = Batch(Data(x, steps if pool is None else classes, steps=pool is None), slice(0, N + 1))
        ((values, _learns),) = (
            propagation.whole(batch) if k is None else CheckpointedBPTT(propagation, k).gradients(batch)
        )
        results.append((propagation.model.grads, values, propagation.state))
    (grads, values, state), (got, got_values, got_state) = results
    for name, grad in grads.items():
        assert_gradient_close(got[name], grad, "float64", name)
    assert values.keys() == got_values.keys()
    for name, tally in values.items():
        np.testing.assert_allclose(got_values[name].result(), tally.result(), rtol=1e-12)
        assert got_values[name].weight == tally.weight
    np.testing.assert_allclose(got_state[0], state[0], rtol=0, atol=1e-12)


def test_truncated_with_lengths_is_each_sequence_by_itself():
    """With a sum over time the sequences of a batch add up, and those that have ended have no part in later updates."""
    x, y, _ = sequences()
    loss = functools.partial(losses.cross_entropy, reduction="sum")
    together, alone = [], []
    for each, batches in ((together, [slice(0, N)]), (alone, [slice(i, i + 1) for i in range(N)])):
        for rows in batches:
            net = model()
            propagation = BPTT(net, Objective(loss))
            batch = Batch(Data(x, y, steps=True), rows)
            for k, _ in enumerate(propagation.truncated(batch, 2, 3)):
                while len(each) <= k:
                    each.append({name: np.zeros_like(grad) for name, grad in net.grads.items()})
                for name, grad in net.grads.items():
                    each[k][name] += grad
    assert len(together) == len(alone) == 5
    for got, expected in zip(together, alone):
        for name, grad in expected.items():
            assert_gradient_close(got[name], grad, "float64", name)
