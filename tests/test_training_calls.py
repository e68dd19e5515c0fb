"""Training of a whole stack as one compiled call, against the loop over its layers, which takes what that does not."""

import copy

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import layers

T, N, D, H = 5, 3, 4, 7
CELLS = {
    "rnn": lambda **options: layers.RNN(D, H, rng=0, **options),
    "gru": lambda **options: layers.GRU(D, H, rng=0, **options),
    "gru-before": lambda **options: layers.GRU(D, H, rng=0, reset_after=False, **options),
    "lstm": lambda **options: layers.LSTM(D, H, rng=0, **options),
    "lstm-all": lambda **options: layers.LSTM(D, H, rng=0, proj_size=3, peephole=True, cell_clip=0.9, **options),
}
FORMS = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 3, "dropout": 0.4},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.3},
    {"dtype": "float64", "bias": False},
    {"bias": "input", "batch_first": True},
]
CALLS = {
    "plain": {},
    "state": {"state": True},
    "one": {"batched": False, "state": True},
    "lengths": {"lengths": np.array([2, 5, 0]), "state": True},
    "resets": {"reset_mask": np.arange(T * N).reshape(T, N) % 4 == 1},
    "no steps": {"steps": 0, "state": True},
}


def random(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def make_case(make, form, *, state=False, batched=True, steps=T, lengths=None, reset_mask=None):
    """A layer, its x and state, and gradients of what it returns."""
    layer = make(**form)
    spec, dtype = layer.state_spec, layer.dtype
    shape = (N, steps) if layer.batch_first else (steps, N)
    rows = (spec.levels * spec.directions,)
    parts = [random(rows + ((N,) if batched else ()) + (width,), dtype, 1) for width in spec.widths]
    given = parts[0] if spec.is_array else tuple(parts)
    x = random((*(shape if batched else (steps,)), D), dtype, 2)
    dy = random((*x.shape[:-1], spec.directions * spec.widths[0]), dtype, 3)
    told = {"lengths": lengths, "reset_mask": reset_mask}
    return layer, x, given if state else None, told, dy, given


def run(layer, x, state, told, dy, dstate_n, need_dx=True, at_once=(True, True)):
    """All results of a step, and its gradients. at_once: whether forward and backward may run as one call each."""
    layer._plain = at_once[0]
    if layer.dropout:
        layer._rng = np.random.default_rng(5)
    layer.zero_grad()
    y, state_n = layer(x, state, training=True, **told)
    layer._plain = at_once[1]
    dx, dstate0 = layer.backward(dy, dstate_n, need_dx=need_dx)
    results = [y, dx]
    for part in (state_n, dstate0):
        results += part if isinstance(part, tuple) else [part]
    return [None if a is None else a.copy() for a in results] + [a.copy() for a in layer.grads.values()]


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_array_equal(a, b)


def calls_of(monkeypatch):
    """Which compiled calls run through, as they are made."""
    made = []
    for name in ("train_forward", "train_backward"):
        call = getattr(layers.stack_calls, name)

        def watched(*arguments, call=call, name=name):
            found = call(*arguments)
            made.append(name if found is not None else None)
            return found

        monkeypatch.setattr(layers.stack_calls, name, watched)
    return made


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_one_call_does_the_same_as_the_loop(cell, form, call, monkeypatch):
    case = make_case(CELLS[cell], form, **CALLS[call])
    made = calls_of(monkeypatch)
    found = run(*case)
    both_ways = call == "resets" and form.get("bidirectional")  # the loop makes the mask for who comes from the end
    assert made == ([None] if both_ways else ["train_forward"]) + ["train_backward"]
    for at_once in ((False, False), (True, False), (False, True)):
        assert_same(run(*case, at_once=at_once), found)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_what_is_none_is_zeros(cell):
    layer, x, state, told, dy, dstate_n = make_case(CELLS[cell], {"num_layers": 2, "bidirectional": True}, state=True)
    for doutput, dlast in ((None, dstate_n), (dy, None), (None, None)):
        wanted = run(layer, x, state, told, doutput, dlast, at_once=(False, False))
        assert_same(run(layer, x, state, told, doutput, dlast), wanted)
    if cell == "lstm":
        for parts in ((state[0], None), [None, state[1]], (None, None)):
            assert_same(
                run(layer, x, parts, told, dy, parts), run(layer, x, parts, told, dy, parts, at_once=(False, False))
            )


def test_dx_is_left_out_where_it_is_not_needed():
    case = make_case(CELLS["lstm"], {"num_layers": 2})
    found = run(*case, need_dx=False)
    assert found[1] is None
    assert_same(found[:1] + found[2:], [a for k, a in enumerate(run(*case)) if k != 1])


def test_gradients_add_up_and_a_cache_is_used_once():
    layer, x, _, _, dy, _ = make_case(CELLS["gru"], {"num_layers": 2})
    layer(x, training=True)
    layer.backward(dy)
    once = {name: a.copy() for name, a in layer.grads.items()}
    with pytest.raises(RuntimeError, match="expected a call with training=True before each backward, got none"):
        layer.backward(dy)
    layer(x, training=True)
    layer.backward(dy)
    for name, a in layer.grads.items():
        np.testing.assert_allclose(a, 2 * once[name], rtol=1e-6)


def test_a_state_may_be_written_again_before_backward():
    layer, x, state, told, dy, _ = make_case(CELLS["lstm"], {}, state=True)
    wanted = run(layer, x, state, told, dy, None)[6:]
    layer.zero_grad()
    layer(x, state, training=True)
    for part in state:
        part[...] = np.nan
    layer.backward(dy)
    assert_same(list(layer.grads.values()), wanted)


def test_arrays_of_any_strides(monkeypatch):
    layer, x, state, told, dy, dstate_n = make_case(CELLS["gru"], {"bidirectional": True}, state=True)
    wanted = run(layer, x, state, told, dy, dstate_n)
    made = calls_of(monkeypatch)
    wide = np.repeat(x, 2, axis=2)
    assert_same(
        run(layer, x[::-1][::-1], state, told, np.asfortranarray(dy.swapaxes(0, 1)).swapaxes(0, 1), dstate_n), wanted
    )
    assert_same(run(layer, wide[..., ::2], np.asfortranarray(state), told, dy, dstate_n), wanted)
    assert None in made and "train_forward" in made


@pytest.mark.parametrize("at_once", [True, False])
def test_refused_gradients_leave_the_call_as_it_was(at_once):
    layer, x, _, _, dy, state = make_case(CELLS["lstm"], {"num_layers": 2})
    layer._plain = at_once
    layer(x, training=True)
    for wrong, error, message in (
        (dy[:, :2], ValueError, r"doutput: expected shape \(5, 3, 7\) like output, got \(5, 2, 7\)"),
        (dy.astype(np.float64), TypeError, "doutput: expected float32 like output, got float64"),
        (dy.tolist(), TypeError, "doutput: expected a NumPy array, got list"),
        (dy[:, 0], ValueError, r"doutput: expected shape \(5, 3, 7\) like output, got \(5, 7\)"),
    ):
        with pytest.raises(error, match=message):
            layer.backward(wrong)
    with pytest.raises(TypeError, match=r"dstate_n: expected a tuple \(h, c\)"):
        layer.backward(dy, state[0])
    assert all(not a.any() for a in layer.grads.values())
    layer.backward(dy, state)
    assert all(a.any() for a in layer.grads.values())


def test_gradients_that_the_user_has_changed():
    layer, x, _, _, dy, _ = make_case(CELLS["gru"], {"num_layers": 2, "bidirectional": True})
    run(layer, x, None, {}, dy, None)
    wanted = {name: a.copy() for name, a in layer.grads.items()}
    name = "weight_hh_l1_reverse"
    layer.grads[name] = np.zeros_like(wanted[name])  # another array of the same kind
    run(layer, x, None, {}, dy, None)
    np.testing.assert_array_equal(layer.grads[name], wanted[name])
    del layer.grads[name]  # then nobody wants it
    run(layer, x, None, {}, dy, None)
    np.testing.assert_array_equal(layer.grads["weight_ih_l0"], wanted["weight_ih_l0"])
    layer.grads[name] = np.zeros_like(wanted[name])
    layer.grads[name].flags.writeable = False
    layer(x, training=True)
    with pytest.raises(ValueError, match=r"into\['weight_hh'\]: expected a writable array, got a read-only one"):
        layer.backward(dy)
    layer.grads[name] = np.zeros((2, 2), np.float32)
    layer(x, training=True)
    with pytest.raises(ValueError, match=r"into\['weight_hh'\]: expected shape"):
        layer.backward(dy)


def test_weights_are_those_of_now():
    layer, x, _, _, dy, _ = make_case(CELLS["lstm"], {"num_layers": 2})
    for change in (
        lambda: layer.params["weight_hh_l1"].__imul__(0.5),
        lambda: layer.load_state_dict({name: a * 0.5 for name, a in layer.state_dict().items()}),
        lambda: layer.params.__setitem__("weight_ih_l0", layer.params["weight_ih_l0"] * 0.25),
        lambda: fr.optim.SGD(0.1).step(layer.params, layer.grads),
    ):
        layer(x)  # packs weights
        change()
        twin = CELLS["lstm"](num_layers=2)
        twin.load_state_dict(layer.state_dict())
        assert_same(run(layer, x, None, {}, dy, None), run(twin, x, None, {}, dy, None))
        np.testing.assert_array_equal(layer(x)[0], twin(x)[0])


def test_a_copy_trains_apart():
    layer, x, _, _, dy, _ = make_case(CELLS["gru"], {})
    run(layer, x, None, {}, dy, None)
    before = {name: a.copy() for name, a in layer.grads.items()}
    twin = copy.deepcopy(layer)
    twin.params["weight_hh_l0"][...] = 0
    run(twin, x, None, {}, dy, None)
    for name, a in layer.grads.items():
        np.testing.assert_array_equal(a, before[name])


def test_zero_grad_clears_any_array():
    layer = CELLS["rnn"]()
    layer.grads["weight_hh_l0"] = np.ones((14, 7), np.float32)[::2]
    layer.grads["bias_ih_l0"] = np.ones(20000)
    layer.grads["bias_hh_l0"].fill(np.nan)
    layer.zero_grad()
    assert all(not a.any() for a in layer.grads.values())


# --- Linear -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(D,), (3, D), (2, 5, D), (2, 1, 3, D), (0, D)], ids=str)
def test_linear_is_the_functional_core_s(shape, bias, dtype, monkeypatch):
    layer = layers.Linear(D, 6, bias=bias, dtype=dtype, rng=0)
    x = random((*shape[:-1], 2 * D), dtype, 1)[..., ::2]  # of strides
    dy = np.asfortranarray(random((*shape[:-1], 6), dtype, 2))

    def results(need_dx):
        layer.zero_grad()
        y = layer(x, training=True)
        dx = layer.backward(dy, need_dx=need_dx)
        return [y.copy(), dx, *(a.copy() for a in layer.grads.values())]

    found = {need_dx: results(need_dx) for need_dx in (True, False)}
    assert found[False][1] is None
    for forward, backward in ((True, True), (True, False), (False, True)):
        with monkeypatch.context() as patch:
            if forward:
                patch.setattr(layers.linear, "map_forward", lambda *_: None)
            if backward:
                patch.setattr(layers.linear, "map_backward", lambda *_: None)
            for need_dx, wanted in found.items():
                assert_same(results(need_dx), wanted)


def test_linear_refuses_a_gradient_that_does_not_fit():
    layer = layers.Linear(D, 6, rng=0)
    layer(random((2, D), "float32", 1), training=True)
    for wrong, error, message in (
        (np.zeros((3, 6), np.float32), ValueError, r"dy: expected shape \(2, 6\), got \(3, 6\)"),
        (np.zeros((2, 5), np.float32), ValueError, r"dy: expected shape \(2, 6\), got \(2, 5\)"),
        (np.zeros(6, np.float32), ValueError, r"dy: expected shape \(2, 6\), got \(6,\)"),
        (np.zeros((2, 6)), TypeError, "dy: expected float32 like weight, got float64"),
        ([[0.0] * 6] * 2, TypeError, "dy: expected a NumPy array, got list"),
    ):
        with pytest.raises(error, match=message):
            layer.backward(wrong)
    layer.backward(np.ones((2, 6), np.float32))
    assert all(a.any() for a in layer.grads.values())
    with pytest.raises(RuntimeError, match="got none since the last"):
        layer.backward(np.ones((2, 6), np.float32))


def test_linear_reads_the_weights_of_now():
    layer, x = layers.Linear(D, 6, rng=0), random((2, D), "float32", 1)
    first = layer(x, training=True)
    layer.params["weight"][...] *= 2
    layer.params["bias"][...] *= 2
    np.testing.assert_array_equal(layer(x, training=True), 2 * first)
    np.testing.assert_array_equal(layer(x), 2 * first)


def test_linear_with_another_byte_order():
    layer, x = layers.Linear(D, 6, rng=0), random((2, D), "float32", 1)
    swapped = x.astype(x.dtype.newbyteorder())
    expected = layer(x)
    np.testing.assert_array_equal(layer(swapped), expected)
    np.testing.assert_array_equal(layer(swapped, training=True), expected)
    with pytest.raises(TypeError, match="dy: expected float32 like weight, got >f4"):
        layer.backward(np.ones((2, 6), ">f4"))


def test_a_state_in_a_list_that_changes_during_the_call():
    """The dropout's generator is Python code, which runs between the layers and may do anything."""
    x = random((T, 40, D), "float32", 1)
    state = [random((2, 40, 64), "float32", 2), random((2, 40, 64), "float32", 3)]

    def run(given, meanwhile):
        layer = layers.LSTM(D, 64, num_layers=2, dropout=0.5, rng=0)

        class Generator:
            def __getattr__(self, name):
                meanwhile()
                return getattr(generator, name)

        generator, layer._rng = layer._rng, Generator()
        return layer(x, given, training=True)

    expected = run(tuple(state), lambda: None)
    given, others = [a.copy() for a in state], []

    def change():
        given[0] = given[1] = None
        others.extend(np.full((2, 40, 64), 1e3, np.float32) for _ in range(8))  # in the memory that is free now

    found = run(given, change)
    assert given == [None, None]
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1][1], expected[1][1])
