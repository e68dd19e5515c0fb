"""Nested states: every walker of `fastrnn._state` on None, an array, and tuples in tuples."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn import _state


def nested():
    h, c, y = (np.arange(2.0 * 3 * k).reshape(2, 3, k) for k in (4, 5, 1))
    return ((h, c), None, y, ())


def test_map_keeps_structure_and_none():
    h, c, y = _state.flatten(nested())
    doubled = _state.map(lambda a: 2 * a, nested())
    assert doubled[1] is None and doubled[3] == () and isinstance(doubled[0], tuple)
    np.testing.assert_array_equal(doubled[0][1], 2 * c)
    assert _state.map(len, None) is None
    assert _state.map(np.shape, [h, [y]]) == (h.shape, (y.shape,))


def test_map_takes_several_states_of_one_structure():
    total = _state.map(np.add, nested(), nested())
    np.testing.assert_array_equal(total[2], 2 * nested()[2])
    with pytest.raises(ValueError):
        _state.map(np.add, nested(), nested()[:2])


def test_flatten_and_unflatten_are_inverse():
    state = nested()
    flat = _state.flatten(state)
    assert len(flat) == 3 and flat[2] is state[2]
    again = _state.unflatten(state, flat)
    assert again[0][0] is state[0][0] and again[1] is None and again[2] is state[2] and again[3] == ()
    assert _state.flatten(None) == [] and _state.unflatten(None, []) is None


@pytest.mark.parametrize("count", [2, 4])
def test_unflatten_refuses_another_number_of_arrays(count):
    with pytest.raises(ValueError, match=f"state: expected 3 arrays, got {count}"):
        _state.unflatten(nested(), [0] * count)


def test_copies_share_no_memory():
    state = nested()
    for ours, theirs in zip(_state.arrays(_state.copy(state)), _state.arrays(state)):
        np.testing.assert_array_equal(ours, theirs)
        assert not np.shares_memory(ours, theirs)


@pytest.mark.parametrize("rows", [[2, 0], np.array([True, False, True]), np.array([], int)])
def test_rows_of_the_batch(rows):
    state, before = nested(), _state.copy(nested())
    taken, zeroed = _state.take_rows(state, rows), _state.zero_rows(state, rows)
    put = _state.with_rows(state, rows, _state.map(lambda a: -a, taken))
    for a, t, z, p in zip(*map(_state.arrays, (state, taken, zeroed, put))):
        np.testing.assert_array_equal(t, a[:, rows])
        assert not z[:, rows].any()
        np.testing.assert_array_equal(p[:, rows], -a[:, rows])
        others = np.setdiff1d(np.arange(3), np.arange(3)[rows])
        np.testing.assert_array_equal(z[:, others], a[:, others])
        np.testing.assert_array_equal(p[:, others], a[:, others])
    for a, b in zip(_state.arrays(state), _state.arrays(before)):
        np.testing.assert_array_equal(a, b)


def test_the_batch_may_be_another_axis():
    (taken,) = _state.take_rows((np.arange(6).reshape(3, 2),), [1], axis=0)
    assert taken.tolist() == [[2, 3]]
    (zeroed,) = _state.zero_rows((np.arange(1, 7).reshape(3, 2),), [1], axis=0)
    assert zeroed.tolist() == [[1, 2], [0, 0], [5, 6]]


def test_parts_and_shapes():
    h = np.zeros((1, 2, 3))
    assert _state.parts(None) == () and _state.parts(h)[0] is h and len(_state.parts([h, h])) == 2
    assert _state.shapes((h, np.zeros(4))) == "(1, 2, 3) and (4,)"


def test_description_is_json_able_and_rebuilds():
    named: dict[str, np.ndarray] = {}
    description = _state.describe(nested(), named)
    assert description == [["state.0.0", "state.0.1"], None, "state.2", []]
    again = _state.rebuild(named, description)
    assert again[0][1] is named["state.0.1"] and again[1] is None and again[3] == ()
    with pytest.raises(TypeError, match="state: expected None, arrays and tuples of them, got list"):
        _state.describe([1], {})
