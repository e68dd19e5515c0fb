"""Weights that stay packed from call to call: the bits of packing anew, and never a stale result.

Letters: T time steps, N batch.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import pickle
import threading

import numpy as np
import pytest
from conftest import run_in_threads

import fastrnn
from fastrnn import GRU, LSTM, RNN, Adam, Linear, Sequential

D, H = 3, 5
LAYERS = {
    "rnn": lambda **options: RNN(D, H, rng=1, **options),
    "gru": lambda **options: GRU(D, H, rng=1, learn_initial_state=True, **options),
    "gru before": lambda **options: GRU(D, H, rng=1, reset_after=False, **options),
    "lstm": lambda **options: LSTM(D, H, rng=1, cell_clip=1.5, **options),
    "projection": lambda **options: LSTM(D, H, rng=1, proj_size=2, peephole=True, **options),
}


def flat(state):
    return [a for part in state for a in flat(part)] if isinstance(state, tuple) else [] if state is None else [state]


def same(a, b):
    return len(flat(a)) == len(flat(b)) and all(
        x.shape == y.shape and np.array_equal(x, y) for x, y in zip(flat(a), flat(b))
    )


def packing_anew(layer, *args, **options):
    """What the layer computes by one call of the functional core for each layer and direction, each packing anew."""
    layer._infer = lambda *given: None
    try:
        return layer(*args, **options)
    finally:
        del layer._infer


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("directions", [1, 2])
def test_one_compiled_call_has_the_bits_of_the_functional_core(name, directions, num_layers):
    rng = np.random.default_rng(0)
    for batch_first in (False, True):
        layer = LAYERS[name](num_layers=num_layers, bidirectional=directions == 2, batch_first=batch_first)
        for param in layer.params.values():
            param[...] = rng.standard_normal(param.shape)
        for T, N in ((1, 1), (4, 1), (5, 3), (0, 2), (9, 8), (3, 20)):
            x = rng.standard_normal((N, T, D) if batch_first else (T, N, D)).astype(np.float32)
            lengths, mask = rng.integers(0, T + 1, N), rng.random((T, N)) < 0.3
            for options in (
                {},
                {"lengths": lengths},
                {"reset_mask": mask},
                {"lengths": lengths.tolist(), "reset_mask": np.asfortranarray(mask)},
                {"lengths": np.zeros(N, np.uint8)},
                {"lengths": np.full(N, T)},
                {"lengths": np.full(N, T, ">i4"), "reset_mask": mask},
                {"lengths": np.repeat(lengths, 2)[::2]},
            ):
                found = layer(x, **options)
                assert same(found, packing_anew(layer, x, **options)), (T, N, options)
                again = layer(x, found[1], **options)
                assert same(again, packing_anew(layer, x, found[1], **options)), (T, N, options)
        x = rng.standard_normal((4, D)).astype(np.float32)
        assert same(layer(x), packing_anew(layer, x))
        assert same(layer(x, layer(x)[1]), packing_anew(layer, x, layer(x)[1]))
        assert same(layer(x.astype(float)), packing_anew(layer, x))
        wide = rng.standard_normal((4, 6, 2 * D)).astype(np.float32)
        assert same(layer(wide[:, ::2, D:]), packing_anew(layer, wide[:, ::2, D:]))
        assert same(layer(wide[:, :, ::2]), packing_anew(layer, wide[:, :, ::2]))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_bits_do_not_depend_on_threads(threads):
    x = np.random.default_rng(0).standard_normal((20, 40, D), dtype=np.float32)
    expected, small = (LSTM(D, H, 2, bidirectional=True, rng=1)(part) for part in (x, x[:2, :3]))
    layer = LSTM(D, H, 2, bidirectional=True, rng=1)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    fastrnn._native.force_plan(threads=threads)
    try:
        assert same(layer(x), expected)
        assert same(layer(x), expected)  # the first call packed
        for _ in range(50):  # so small that the call keeps the GIL
            assert same(layer(x[:2, :3]), small)
    finally:
        fastrnn.set_num_threads(before)
        fastrnn._native.force_plan()


def test_each_precision_and_instruction_set_has_packed_weights_of_its_own():
    layer = LSTM(40, 64, 2, rng=1)
    x = np.random.default_rng(0).standard_normal((3, 20, 40)).astype(np.float32)
    before = fastrnn._native.isa()
    fastrnn._native.emulate_amx(True)
    try:
        for precision in ("highest", "medium", "high", "medium", "highest"):
            fastrnn.set_matmul_precision(precision)
            assert same(layer(x), packing_anew(layer, x))
            assert same(layer(x[:, :1]), packing_anew(layer, x[:, :1]))
        for isa in (*fastrnn._native.isas(), before):
            fastrnn._native.use_isa(isa)
            assert same(layer(x), packing_anew(layer, x))
    finally:
        fastrnn._native.use_isa(before)
        fastrnn._native.emulate_amx(False)
        fastrnn.set_matmul_precision("highest")


def test_linear_maps():
    layer = Linear(D, 4, rng=0)
    for shape in ((D,), (2, D), (3, 4, D), (0, D)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        expected = fastrnn.functional.linear_forward(x, layer.params["weight"], layer.params["bias"])[0]
        assert np.array_equal(layer(x), expected)
        assert layer(x).shape == expected.shape
    layer.params["weight"][0] = 0
    assert np.array_equal(layer(np.ones(D, np.float32))[:1], layer.params["bias"][:1])


@pytest.mark.parametrize("output_activation", ["identity", "softmax"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_jordan_network_that_runs_freely(bias, output_activation):
    layer = fastrnn.Jordan(D, H, 4, bias=bias, output_activation=output_activation, rng=1)
    rng = np.random.default_rng(0)
    for T, N in ((1, 1), (5, 3), (4, 20), (0, 2)):
        x = rng.standard_normal((T, N, D)).astype(np.float32)
        y0 = rng.standard_normal((1, N, 4)).astype(np.float32)
        lengths, mask = rng.integers(0, T + 1, N), rng.random((T, N)) < 0.3
        for given in ({}, {"state": y0}, {"state": y0, "lengths": lengths}, {"reset_mask": mask}):
            p = layer._params
            weights = (p["weight_ih"], p["weight_yh"], p.get("bias_h"), p["weight_hy"], p.get("bias_y"))
            options = {name: value for name, value in given.items() if name != "state"}
            start = y0[0] if "state" in given else None
            y, y_n, _ = fastrnn.functional.jordan_forward(
                x, start, *weights, output_activation=output_activation, training=False, **options
            )
            assert same(layer(x, **given), (y, y_n[None]))
    x = np.ones((3, 2, D), np.float32)
    before, generation = layer(x)[0], layer._stack.generation
    assert np.array_equal(layer(x)[0], before) and layer._stack.generation == generation
    layer.params["weight_hy"][0] += 1
    assert not np.array_equal(layer(x)[0], before)


# --- never stale ----------------------------------------------------------------------------------------------------


class Writer:
    """Somebody who may hold on to what a layer's parameters are reached by, and writes through it now or later."""

    def __init__(self, layer):
        self.layer, self.held, self.count = layer, [], 0

    def value(self):
        self.count += 1
        return np.float32(self.count / 8)

    def hold_dict(self):
        self.held.append(lambda params: params["bias_ih_l0"].fill(self.value()))
        self.held[-1] = (self.held[-1], self.layer.params)

    def hold_array(self):
        self.held.append((lambda a: a.__setitem__((0, 0), self.value()), self.layer.params["weight_hh_l0"]))

    def hold_view(self):
        self.held.append((lambda a: a.fill(self.value()), self.layer.params["weight_ih_l0"].T[1:, ::2]))

    def hold_memory(self):
        def write(memory):
            memory[0] = float(self.value())

        self.held.append((write, memoryview(self.layer.params["bias_hh_l0"])))

    def hold_iterator(self):
        self.held.append((lambda a: a.__setitem__(3, self.value()), self.layer.params["weight_hh_l0"].flat))

    def hold_pointer(self):
        pointer = self.layer.params["bias_ih_l0"].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self.held.append((lambda p: p.__setitem__(1, float(self.value())), pointer))

    def hold_items(self):
        self.held.append((lambda items: items[2][1].__imul__(self.value()), list(self.layer.params.items())))

    def hold_shallow_copy(self):
        self.held.append((lambda c: c.params["bias_ih_l0"].__iadd__(self.value()), copy.copy(self.layer)))

    def write_and_let_go(self):
        if self.held:
            write, way = self.held.pop()
            write(way)

    def write_and_hold(self):
        if self.held:
            write, way = self.held[0]
            write(way)

    def let_go(self):
        self.held.clear()

    def write_once(self):
        self.layer.params["bias_ih_l0"][self.count % 5] = self.value()

    def exchange_two_weights(self):
        w = self.layer.params["weight_ih_l0"]
        w[[0, 1]] = w[[1, 0]]

    def negate_two_weights(self):
        w = self.layer.params["weight_hh_l0"].reshape(-1)
        w[0], w[16] = -w[0], -w[16]

    def replace(self):
        self.layer.params["bias_hh_l0"] = np.full(3 * H, self.value())

    def optimise(self):
        params = self.layer.params
        Adam(lr=0.1).step(params, {name: np.ones_like(a) for name, a in params.items()})

    def train(self):
        y, _ = self.layer(np.ones((2, 2, D), np.float32), training=True)
        self.layer.backward(np.ones_like(y))
        Adam(lr=0.1).step(self.layer.params, self.layer.grads)
        self.layer.zero_grad()

    def load(self):
        self.layer.load_state_dict({name: a + self.value() for name, a in self.layer.state_dict().items()})

    def prepare_and_release(self):
        self.layer.prepare()
        self.layer(np.ones((1, 1, D), np.float32))
        self.layer.release()

    def release(self):
        self.layer.release()

    def call(self):
        self.layer(np.ones((2, 1, D), np.float32))

    def open_stream(self):
        self.held.append((lambda stream: stream.step(np.ones(D, np.float32)), self.layer.stream()))


ACTIONS = sorted(name for name, value in vars(Writer).items() if callable(value) and name[0] != "_" and name != "value")


def check_never_stale(actions):
    """After each action the layer computes what a new layer of the same weights does."""
    layer = GRU(D, H, 2, rng=1)
    writer, x = Writer(layer), np.ones((2, 1, D), np.float32)
    layer(x)
    for action in actions:
        getattr(writer, action)()
        current = {name: a.copy() for name, a in layer._params.items()}
        found = layer(x)
        fresh = GRU(D, H, 2, rng=2)
        fresh.load_state_dict(current)
        assert same(found, packing_anew(fresh, x)), actions


def test_no_two_actions_give_a_stale_result():
    for actions in itertools.product(ACTIONS, repeat=2):
        check_never_stale(actions)


@pytest.mark.parametrize("seed", range(8))
def test_no_way_to_change_a_weight_gives_a_stale_result(seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        check_never_stale(rng.choice(ACTIONS, 12).tolist())


def test_a_torch_tensor_that_shares_memory_is_seen():
    torch = pytest.importorskip("torch")
    layer = LSTM(D, H, rng=1)
    x = np.ones((2, 1, D), np.float32)
    tensor = torch.from_numpy(layer.params["weight_hh_l0"])
    before = layer(x)
    tensor[0, 0] = 9
    assert not same(layer(x), before)
    assert same(layer(x), packing_anew(layer, x))
    del tensor
    assert same(layer(x), packing_anew(layer, x))


def test_arrays_in_somebody_elses_memory_are_looked_at_each_time():
    layer = RNN(D, H, rng=1)
    memory = np.zeros(H * H, np.float32)
    layer.params["weight_hh_l0"] = memory.reshape(H, H)
    x = np.ones((2, 1, D), np.float32)
    for value in (0, 1, 2):
        memory[:] = value
        assert same(layer(x), packing_anew(layer, x))


def packed_again(layer, x):
    """Whether a call with x has packed weights: new ones have other memory, as the old are still held."""
    before = layer._stack.generation
    layer(x)
    return layer._stack.generation != before


def test_weights_are_packed_once():
    layer = LSTM(D, H, 2, bidirectional=True, rng=1)
    x = np.ones((2, 1, D), np.float32)
    layer(x)
    assert layer._stack.kept_bytes() > 0
    assert not packed_again(layer, x)
    layer.state_dict()  # reads, writes nothing: the first time afterwards there is no checksum yet to compare with
    layer(x)
    layer.state_dict()
    assert not packed_again(layer, x)
    layer.params["bias_ih_l0"][0] += 1
    assert packed_again(layer, x)
    assert not packed_again(layer, x)
    layer.release()
    assert layer._stack.kept_bytes() == 0
    assert packed_again(layer, x)


def test_the_checksum_sees_changes_that_make_up_for_each_other():
    layer = RNN(64, 64, rng=1)
    x = np.ones((1, 1, 64), np.float32)
    flat_weights = layer.params["weight_hh_l0"].reshape(-1)  # held: every call takes a checksum
    bits, rng = flat_weights.view(np.uint32), np.random.default_rng(0)
    layer(x)
    layer(x)
    lane = 64  # floats that one round of the checksum reads
    for k in range(300):
        i, j, m = rng.choice(np.arange(4096 // lane), 3, replace=False) * lane + rng.integers(lane)
        kind = k % 6
        if kind == 0:
            bits[i], bits[j] = bits[j], bits[i]
        elif kind == 1:
            bits[[i, j]] ^= np.uint32(1 << 31)
        elif kind == 2:
            bits[[i, j, m]] += np.array([1, 2**32 - 2, 1], np.uint32)
        elif kind == 3:
            bits[i] ^= np.uint32(1 << (k % 32))
        elif kind == 4:
            bits[i : i + 2], bits[j : j + 2] = bits[j : j + 2].copy(), bits[i : i + 2].copy()
        else:
            flat_weights[:] = flat_weights[::-1].copy()
        assert packed_again(layer, x), kind
        assert not packed_again(layer, x)


def test_copies_and_pickles_pack_for_themselves():
    layer = LSTM(D, H, rng=1)
    x = np.ones((2, 1, D), np.float32)
    expected = layer(x)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        assert copied._stack is None
        assert same(copied(x), expected)


def test_threads_at_once():
    layer = LSTM(D, H, 2, rng=1)
    x = np.ones((3, 2, D), np.float32)
    expected = packing_anew(layer, x)
    wrong = []

    def work():
        for k in range(300):
            if k % 50 == 0:
                layer.release()  # so that several threads pack at once
            if not same(layer(x), expected):
                wrong.append(1)

    run_in_threads(work)
    assert not wrong
    layer(x)
    one = LSTM(D, H, 2, rng=1)
    one(x)
    assert layer._stack.kept_bytes() == one._stack.kept_bytes()


def test_weights_may_change_while_other_threads_compute():
    """Whatever a call under way gets, it does not crash, and later calls have the new weights."""
    layer = LSTM(30, 40, 2, rng=1)
    x = np.ones((20, 3, 30), np.float32)
    stop = []

    def work():
        while not stop:
            layer(x)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for k in range(100):
        if k % 2:
            layer.params["weight_hh_l1"] = np.full((160, 40), k / 1000, np.float32)
        else:
            layer.params["weight_ih_l0"][...] = k / 1000
    stop.append(1)
    for thread in threads:
        thread.join()
    assert same(layer(x), packing_anew(layer, x))


def test_nothing_leaks():
    def use():
        layer = LSTM(64, 64, rng=1)
        for T in (1, 2):
            layer(np.ones((T, 1, 64), np.float32))
            layer.params["bias_ih_l0"][0] += 1

    use()
    gc.collect()
    before = fastrnn._native.kept_bytes()
    for _ in range(50):
        use()
    assert fastrnn._native.kept_bytes() <= before + (4 << 20)


def test_all_parts_of_a_model_keep_their_weights():
    model = Sequential(LSTM(D, H, bidirectional=True, rng=1), GRU(2 * H, H, rng=2), Linear(H, 2, rng=3))
    x = np.ones((2, 1, D), np.float32)
    expected = model(x)
    assert all(layer._stack.kept_bytes() for layer in model)
    assert np.array_equal(model(x), expected)
    model.params["2.bias"][:] += 1
    np.testing.assert_allclose(model(x), expected + 1, rtol=1e-6)
