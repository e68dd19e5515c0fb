"""Ctrl-C within one long call: it acts at once, and leaves states, parameters and gradients as they were.

Letters: T time steps, N batch, D features, H hidden size.
"""

from __future__ import annotations

import gc
import signal
import threading
import time

import numpy as np
import pytest

import fastrnn
from fastrnn import _native, functional

RNG = np.random.default_rng(0)
AT_ONCE = 0.2  # seconds
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")


class Stop(BaseException):
    """As KeyboardInterrupt, but not the user's."""


@pytest.fixture
def alarm():
    """alarm(handler, delay): one SIGALRM after so many seconds."""
    before = signal.getsignal(signal.SIGALRM)

    def set_alarm(handler, delay):
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, delay)

    yield set_alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def stopped(alarm):
    """stopped(call, prepare, at): stops `call` after the part `at` of the time that it takes; `prepare` goes before
    each call, and its result to the call. Fails unless a stop came through within AT_ONCE; a machine with other work
    to do may need a second try."""

    def stop():
        raise Stop

    def run(call, prepare=lambda: None, at=0.5, check=lambda _: None):
        given = prepare()
        begin = time.perf_counter()
        call(given)
        takes = time.perf_counter() - begin
        late = []
        for _ in range(6):
            given = prepare()
            gc.collect()
            alarm(stop, at * takes)
            begin = time.perf_counter()
            try:
                call(given)
                signal.setitimer(signal.ITIMER_REAL, 0)
                takes = min(takes, time.perf_counter() - begin)  # it was faster this time
                continue
            except Stop:
                late.append(time.perf_counter() - begin - at * takes)
            check(given)
            if late[-1] < min(AT_ONCE, 0.5 * (1 - at) * takes + 0.02):
                return
        pytest.fail(f"of {takes:.2f} s stopped after {at * takes:.2f} s: {late} s later")

    return run


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(request.param)
    yield request.param
    fastrnn.set_num_threads(before)


SHAPES = {  # one after the other: by rows; projected ahead, by units with two threads; tiny steps; long steps
    "rows": (400, 64, 128, 256),
    "units": (6000, 1, 64, 256),
    "tiny": (600_000, 1, 2, 4),
    "long": (4, 20_000, 64, 256),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_forward_pass_stops(stopped, threads, shape):
    T, N, D, H = shape
    layer, x = fastrnn.GRU(D, H, rng=0), RNG.standard_normal((T, N, D), dtype=np.float32)
    params = layer.state_dict()
    small, _ = layer(x[:3, :2], training=True)
    stopped(lambda _: layer(x))
    for name, param in layer.params.items():
        assert np.array_equal(param, params[name])
    layer.backward(small)  # what an earlier call has kept is still there


def test_what_was_kept_survives_a_training_call_that_is_stopped(stopped):
    layer, x = fastrnn.LSTM(64, 256, rng=0), RNG.standard_normal((300, 64, 64), dtype=np.float32)
    y, _ = layer(x[:3], training=True)
    expected = layer.backward(y)[0]
    kept = []

    def prepare():
        layer.zero_grad()
        kept.append(layer(x[:3], training=True)[0])

    stopped(lambda _: layer(x, training=True), prepare)
    assert np.array_equal(layer.backward(kept[-1])[0], expected)


@pytest.mark.parametrize("at", [0.15, 0.5, 0.8])
def test_gradients_are_as_before_a_backward_pass_that_is_stopped(stopped, threads, at):
    layer, x = fastrnn.LSTM(64, 256, rng=0), RNG.standard_normal((300, 64, 64), dtype=np.float32)

    def prepare():
        y, _ = layer(x, training=True)
        for grad in layer.grads.values():
            grad.fill(1.5)
        return y

    def check(y):
        assert all((grad == 1.5).all() for grad in layer.grads.values())
        with pytest.raises(RuntimeError):
            layer.backward(y)  # the cache is used up
        layer.backward(layer(x[:2], training=True)[0])

    stopped(layer.backward, prepare, at, check)


def test_the_callers_dx_is_as_before_too(stopped):
    x = RNG.standard_normal((300, 64, 64), dtype=np.float32)
    weights = [RNG.standard_normal(shape, dtype=np.float32) * 0.1 for shape in ((768, 64), (768, 256), (768,), (768,))]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def prepare():
        output, h_n, cache = functional.gru_forward(x, None, *weights)
        into = {name: np.full_like(array, 1.5) for name, array in zip(names, weights)}
        return output, h_n, cache, into | {"x": np.full((300, 64, 128), 1.5, np.float32)[:, :, :64]}

    def check(given):
        assert all((array == 1.5).all() for array in given[3].values())

    for at in (0.4, 0.9):
        stopped(lambda given: functional.gru_backward(*given[:3], into=given[3]), prepare, at, check)


@pytest.mark.parametrize("at", [0.2, 0.4, 0.6, 0.8, 0.95])
def test_gradients_of_few_rows_are_whole_or_untouched(alarm, threads, at):
    """Below 2,000 rows the gradients of weights are finished once begun."""
    layer, x = fastrnn.LSTM(512, 1024, rng=0), RNG.standard_normal((20, 4, 512), dtype=np.float32)
    y, _ = layer(x, training=True)
    begin = time.perf_counter()
    layer.backward(y)
    takes = time.perf_counter() - begin
    whole = {name: grad.copy() for name, grad in layer.grads.items()}

    def stop():
        raise Stop

    for _ in range(5):
        layer.zero_grad()
        y, _ = layer(x, training=True)
        alarm(stop, at * takes)
        try:
            layer.backward(y)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Stop:
            pass
        untouched = [not grad.any() for grad in layer.grads.values()]
        complete = [np.array_equal(grad, whole[name]) for name, grad in layer.grads.items()]
        assert all(untouched) or all(complete)


def test_a_linear_layer_stops_within_its_one_step(stopped, threads):
    layer, x = fastrnn.Linear(512, 2000, rng=0), RNG.standard_normal((8000, 512), dtype=np.float32)

    def prepare():
        y = layer(x, training=True)
        for grad in layer.grads.values():
            grad.fill(1.5)
        return y

    def check(_):
        assert all((grad == 1.5).all() for grad in layer.grads.values())

    stopped(lambda _: layer(x))
    stopped(layer.backward, prepare, 0.7, check)


def language_model(*more):
    return fastrnn.Sequential(
        fastrnn.Embedding(50, 32, rng=0), fastrnn.LSTM(32, 256, rng=0), *more, fastrnn.Linear(256, 50, rng=0)
    )


class Own(fastrnn.Module):
    """A layer that no compiled chain has."""

    def arguments(self):
        return {}

    def forward(self, x, state=None, *, context=None, training=False):
        return x * 1, None


@pytest.mark.parametrize("more", [(), (Own(),)], ids=["compiled", "piecewise"])
def test_a_stream_goes_back_to_its_state(stopped, more):
    stream = language_model(*more).stream(1)
    stream.run(np.arange(9)[:, None])
    before = stream.state[1]
    expected = stream.step(np.array([3]))
    tokens = RNG.integers(0, 50, (4000, 1))

    def prepare():
        stream.restore((None, before, *[None] * (1 + len(more))))

    def check(_):
        for array, was in zip(stream.state[1], before):
            assert np.array_equal(array, was)
        assert np.array_equal(stream.step(np.array([3])), expected)

    stopped(lambda _: stream.run(tokens), prepare, check=check)


@pytest.mark.parametrize("mode", ["greedy", "sample"])
def test_generation_stops_with_its_generator_as_before(stopped, mode):
    model, rng = language_model(), np.random.default_rng(5)
    options = {"rng": rng} if mode == "sample" else {}
    states = []

    def prepare():
        states.append(rng.bit_generator.state)

    def check(_):
        assert rng.bit_generator.state == states[-1]

    stopped(lambda _: model.generate(np.array([1]), 4000, mode=mode, **options), prepare, check=check)
    model = fastrnn.Sequential(fastrnn.GRU(32, 32, rng=0))
    stopped(lambda _: model.generate(np.zeros((1, 32), np.float32), 100_000, mode="feedback"))


def test_trees_stop(stopped, threads):
    nodes = 2**14
    parent = [(node - 1) // 2 if node else -1 for node in range(nodes)]
    trees = fastrnn.Trees(parent)
    layer, x = fastrnn.TreeLSTM(64, 256, rng=0), RNG.standard_normal((nodes, 64), dtype=np.float32)

    def prepare():
        h, _ = layer(x, trees, training=True)
        for grad in layer.grads.values():
            grad.fill(1.5)
        return h

    def check(_):
        assert all((grad == 1.5).all() for grad in layer.grads.values())

    stopped(lambda _: layer(x, trees))
    for at in (0.3, 0.8):
        stopped(layer.backward, prepare, at, check)


# --- Handlers that do not raise ---------------------------------------------------------------------------------------


def ticking(alarm, call, handler):
    """The call, with a signal every 10 ms."""
    signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_a_handler_may_compute_and_the_call_goes_on(alarm, threads, precision):
    """On its own thread's denormals and, where there are any, tiles."""
    layer, other = fastrnn.LSTM(64, 128, rng=0), fastrnn.GRU(64, 64, rng=0)
    x = RNG.standard_normal((400, 32, 64), dtype=np.float32)
    seen = []

    def handler():
        seen.append((other(x[:2])[0].copy(), np.float32(1e-40) * np.ones(1, np.float32)))

    try:
        fastrnn.set_matmul_precision(precision)
        _native.emulate_amx(precision != "highest")
        expected, (h, c) = layer(x, training=True)
        dx = layer.backward(expected)[0]
        of_other = other(x[:2])[0]
        layer.zero_grad()

        def both():
            y, state = layer(x, training=True)
            return y, state, layer.backward(y)[0]

        for _ in range(20):
            y, state, dx_again = ticking(alarm, both, handler)
            assert np.array_equal(y, expected) and np.array_equal(state[0], h) and np.array_equal(state[1], c)
            assert np.array_equal(dx_again, dx)
            if len(seen) > 5:
                break
    finally:
        _native.emulate_amx(False)
        fastrnn.set_matmul_precision("highest")
    assert len(seen) > 2
    for output, denormal in seen:
        assert np.array_equal(output, of_other)
        assert denormal[0] != 0


def test_other_threads_are_not_disturbed(alarm):
    """A signal belongs to the main thread: it stops what that one does, and nothing else."""
    layer, x = fastrnn.GRU(64, 256, rng=0), RNG.standard_normal((300, 32, 64), dtype=np.float32)
    expected, results = layer(x)[0], []
    worker = threading.Thread(target=lambda: results.extend(layer(x)[0] for _ in range(3)))

    def stop():
        raise Stop

    alarm(stop, 0.05)
    with pytest.raises(Stop):
        worker.start()
        while True:
            layer(x)
    worker.join()
    assert len(results) == 3 and all(np.array_equal(result, expected) for result in results)


# --- Kept workspace ---------------------------------------------------------------------------------------------------


def test_kept_workspace_is_freed_by_one_call():
    layer, x = fastrnn.GRU(64, 64, rng=0), RNG.standard_normal((100, 64, 64), dtype=np.float32)
    expected = layer(x)[0]
    layer(x, training=True)
    layer.backward(expected)
    kept = _native.kept_bytes()
    assert kept > 1 << 20
    assert fastrnn.free_workspace() == kept
    assert _native.kept_bytes() == 0 and fastrnn.free_workspace() == 0
    assert np.array_equal(layer(x)[0], expected)
