"""In a torch process the kernels run on torch's threads. Letters: T, N, D, H."""

import os
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from process_cases import run_python

torch = pytest.importorskip("torch")

import fastrnn  # noqa: E402
from fastrnn import _native  # noqa: E402
from fastrnn.interop.torch import _threads  # noqa: E402

pytestmark = pytest.mark.skipif(
    "OpenMP" not in torch.__config__.parallel_info().partition("backend:")[2], reason="this torch has no OpenMP"
)


@pytest.fixture(autouse=True)
def threads_as_before():
    before = fastrnn.get_num_threads(), torch.get_num_threads()
    assert _threads.borrow()
    yield
    _threads.borrow()
    fastrnn.set_num_threads(before[0])
    torch.set_num_threads(before[1])


def gradients(rng_seed=0):
    """Of a training step that is large enough for several threads."""
    rng = np.random.default_rng(rng_seed)
    layer = fastrnn.LSTM(40, 72, bidirectional=True, rng=0)
    x = rng.standard_normal((20, 37, 40), dtype=np.float32)
    y, _ = layer(x, training=True)
    dx, _ = layer.backward(np.cos(y))
    return [y, dx, *layer.grads.values()]


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_same_bits_as_on_threads_of_our_own(threads):
    fastrnn.set_num_threads(threads)
    assert fastrnn.runtime.config()["threads_of"] == "torch"
    borrowed = gradients()
    _native.borrow_threads("", 0, 0, 0)
    assert fastrnn.runtime.config()["threads_of"] == "fastrnn"
    assert same(borrowed, gradients())


@pytest.mark.parametrize("theirs, ours", [(1, 3), (3, 2), (2, 1)])
def test_torch_has_another_number_of_threads(theirs, ours):
    fastrnn.set_num_threads(1)
    expected = gradients()
    torch.set_num_threads(theirs)
    fastrnn.set_num_threads(ours)
    a = torch.randn(300, 300)
    for _ in range(5):
        a.tanh() @ a
        assert same(expected, gradients())


def test_callers_in_many_threads():
    fastrnn.set_num_threads(2)
    expected = [gradients(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as executor:
        for found in executor.map(lambda i: (i % 4, gradients(i % 4)), range(24)):
            assert same(expected[found[0]], found[1])


def run(script):
    done = run_python("-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux lists them")
def test_no_thread_is_made_beside_those_of_torch():
    script = """
        import os, numpy as np, torch, fastrnn, fastrnn.interop.torch
        torch.set_num_threads(3), fastrnn.set_num_threads(3)
        torch.randn(3000, 300).tanh()
        before = len(os.listdir("/proc/self/task"))
        layer = fastrnn.LSTM(64, 64)
        for _ in range(10):
            layer(np.ones((30, 64, 64), np.float32))
        print(before, len(os.listdir("/proc/self/task")))
    """
    before, after = run(script)
    assert before == after


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own():
    script = """
        import os, warnings, numpy as np, torch, fastrnn, fastrnn.interop.torch
        warnings.simplefilter("ignore")
        torch.set_num_threads(2), fastrnn.set_num_threads(2)
        torch.randn(3000, 300).tanh()
        layer, x = fastrnn.GRU(64, 64, rng=0), np.ones((30, 64, 64), np.float32)
        expected = layer(x)[0]
        child = os.fork()
        if child == 0:
            equal = all(np.array_equal(layer(x)[0], expected) for _ in range(3))
            os._exit(0 if equal and fastrnn.runtime.config()["threads_of"] == "fastrnn" else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), fastrnn.runtime.config()["threads_of"])
    """
    assert run(script) == ["0", "torch"]
