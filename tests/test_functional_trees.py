"""The compiled tree networks against the float64 reference, and the reference against finite differences and PyTorch.

Letters: V nodes of all trees, K trees, D input_size, H hidden_size, N children per node.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import assert_output_close, assert_results_close, every_dtype
from tree_cases import FORM_IDS, FORMS, make_tree_case, random_trees

from fastrnn import Trees, _native, functional, get_num_threads, set_num_threads
from fastrnn.functional import tree as compiled
from fastrnn.reference import tree as reference

every_form = pytest.mark.parametrize("cell, children", FORMS, ids=FORM_IDS)
WEIGHTS = ("weight_ih", "weight_hh", "bias")


def expect(case: Any) -> dict[str, Any]:
    return case.astype(np.float64).run(reference)


SHAPES = [
    ([1], 1, 1),
    ([1, 1, 1], 3, 5),
    ([2], 4, 8),
    ([9, 1, 30, 14], 5, 17),
    ([25, 60, 33, 7, 1], 19, 33),
    ([6] * 30, 7, 50),
]


@cache
def case_and_expected(cell: str, children: Any, number: int, dtype: str, at_leaves: bool) -> tuple[Any, dict[str, Any]]:
    """Cached, as every instruction set meets the same cases."""
    case = make_tree_case(cell, children, *SHAPES[number], dtype, at_leaves=at_leaves)
    return case, expect(case)


def check(case: Any, dtype: str) -> None:
    assert_results_close(case.run(compiled), expect(case), dtype)


# --- Values and gradients ---------------------------------------------------------------------------------------------


@every_form
@every_dtype
@pytest.mark.parametrize("at_leaves", [False, True], ids=["nodes", "leaves"])
def test_matches_reference(cell, children, dtype, at_leaves, isa):
    """One node, chains, bushes; sizes around every vector width; levels with and without inputs projected ahead."""
    for number, shape in enumerate(SHAPES):
        case, expected = case_and_expected(cell, children, number, dtype, at_leaves)
        try:
            assert_results_close(case.run(compiled), expected, dtype)
        except AssertionError as error:
            raise AssertionError(f"sizes, D, H = {shape}") from error


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid", "identity"])
@every_dtype
def test_nonlinearities(nonlinearity, dtype, isa):
    check(make_tree_case("rnn", "sum", [9, 20], 5, 12, dtype, nonlinearity=nonlinearity), dtype)


@every_form
def test_random_configurations(cell, children):
    rng = np.random.default_rng(7)
    for trial in range(12):
        sizes = rng.integers(1, 40, rng.integers(1, 6)).tolist()
        dtype = str(rng.choice(["float32", "float64"]))
        D, H = (int(size) for size in rng.integers(1, 41, 2))
        case = make_tree_case(cell, children, sizes, D, H, dtype, at_leaves=rng.random() < 0.5, seed=trial)
        if rng.random() < 0.3:
            case = replace(case, weights=(*case.weights[:2], None))
        if rng.random() < 0.3:
            case = replace(case, dh=None)
        if rng.random() < 0.3:
            case = replace(case, droot=(None,) * len(case.droot))
        if rng.random() < 0.3:
            case = replace(case, x=np.asfortranarray(case.x))
        try:
            check(case, dtype)
        except AssertionError as error:
            raise AssertionError(f"trial {trial}: {sizes} {D} {H} {dtype}") from error


@every_form
@pytest.mark.parametrize("at_leaves", [False, True], ids=["nodes", "leaves"])
def test_reference_has_the_gradient(cell, children, at_leaves):
    """Finite differences of a weighted sum of all outputs."""
    case = make_tree_case(cell, children, [7, 1, 5], 3, 4, "float64", at_leaves=at_leaves)

    def loss(case):
        h, *root, _ = case.forward(reference)
        return (h * case.dh).sum() + sum((r * d).sum() for r, d in zip(root, case.droot))

    grads = case.backward(reference, case.forward(reference)[-1])
    rng = np.random.default_rng(0)
    for name, array in {"x": case.x, **dict(zip(WEIGHTS, case.weights))}.items():
        for index in rng.choice(array.size, min(array.size, 25), replace=False):
            at = np.unravel_index(index, array.shape)
            before, difference = array[at], 0.0
            for sign in (1, -1):
                array[at] = before + sign * 1e-6
                difference += sign * loss(case) / 2e-6
            array[at] = before
            np.testing.assert_allclose(grads[name][at], difference, rtol=1e-5, atol=1e-7, err_msg=f"{name}{at}")


@every_form
def test_torch_autograd_of_a_recursion(cell, children):
    """Each gate with weights of its own, as the paper writes them, and gradients by autograd."""
    torch = pytest.importorskip("torch")
    case = make_tree_case(cell, children, [9, 1, 16], 4, 6, "float64")
    trees, H, N = case.trees, 6, 1 if children == "sum" else children
    x, W, U, b = (torch.tensor(a, requires_grad=True) for a in (case.x, *case.weights))
    gates = 4 if cell == "lstm" else 1
    W_, b_ = W.view(gates, H, -1), b.view(gates, H)
    U_ = U.view(-1, H, N, H)  # recurrent gate, unit, position, unit
    all_h, c_of = {}, {}

    def node(j):
        below = [int(k) for k in np.flatnonzero(trees.parent == j)]
        states = [node(k) for k in below]

        def recurrent(gate):
            if children == "sum":
                return U_[gate, :, 0] @ sum((h for h, _ in states), torch.zeros(H, dtype=x.dtype))
            return sum(
                (U_[gate, :, trees.position[k]] @ h for k, (h, _) in zip(below, states)), torch.zeros(H, dtype=x.dtype)
            )

        if cell == "rnn":
            h, c = torch.tanh(W_[0] @ x[j] + recurrent(0) + b_[0]), None
        else:
            i = torch.sigmoid(W_[0] @ x[j] + recurrent(0) + b_[0])
            g = torch.tanh(W_[2] @ x[j] + recurrent(1 + N) + b_[2])
            o = torch.sigmoid(W_[3] @ x[j] + recurrent(2 + N) + b_[3])
            c = i * g
            for k, (h_k, c_k) in zip(below, states):
                from_children = U_[1, :, 0] @ h_k if children == "sum" else recurrent(1 + trees.position[k])
                c = c + torch.sigmoid(W_[1] @ x[j] + from_children + b_[1]) * c_k
            h = o * torch.tanh(c)
        all_h[j], c_of[j] = h, c
        return h, c

    for root in trees.root:
        node(int(root))
    h = torch.stack([all_h[j] for j in range(trees.num_nodes)])
    loss = (h * torch.tensor(case.dh)).sum() + (h[trees.root.copy()] * torch.tensor(case.droot[0])).sum()
    expected = {"h": h.detach().numpy(), "h_root": h.detach().numpy()[trees.root]}
    if cell == "lstm":
        c_root = torch.stack([c_of[int(j)] for j in trees.root])
        loss = loss + (c_root * torch.tensor(case.droot[1])).sum()
        expected["c_root"] = c_root.detach().numpy()
    loss.backward()
    expected |= {"d" + name: a.grad.numpy() for name, a in zip(("x", *WEIGHTS), (x, W, U, b))}
    assert_results_close(case.run(compiled), expected, "float64")


@every_dtype
@pytest.mark.parametrize("children", ["sum", 1])
@pytest.mark.parametrize("T, N", [(1, 3), (23, 1), (9, 5)])
def test_a_chain_is_a_sequence(children, T, N, dtype):
    """Trees without branches are sequences from the leaf to the root: the LSTM's and the RNN's results, exactly."""
    rng = np.random.default_rng(3)
    D, H = 7, 20
    trees = Trees([np.append(np.arange(1, T), -1)] * N)
    x = rng.standard_normal((T, N, D)).astype(dtype)
    doutput = rng.standard_normal((T, N, H)).astype(dtype)
    dstate = [rng.standard_normal((N, H)).astype(dtype) for _ in range(2)]

    def nodes(a):
        return np.ascontiguousarray(a.swapaxes(0, 1)).reshape(T * N, -1)

    for cell, G in (("lstm", 4), ("rnn", 1)):
        w_ih, w_hh = ((0.3 * rng.standard_normal((G * H, K))).astype(dtype) for K in (D, H))
        bias = rng.standard_normal(G * H).astype(dtype)
        states = 2 if cell == "lstm" else 1
        output, *state_n, cache = getattr(functional, f"{cell}_forward")(x, *[None] * states, w_ih, w_hh, bias, None)
        grads = getattr(functional, f"{cell}_backward")(doutput, *dstate[:states], cache)
        h, *root, tape = getattr(compiled, f"tree_{cell}_forward")(nodes(x), trees, w_ih, w_hh, bias, children=children)
        tree_grads = getattr(compiled, f"tree_{cell}_backward")(nodes(doutput), *dstate[:states], tape)
        actual = {"h": h, **{f"root{i}": r for i, r in enumerate(root)}, **{"d" + k: v for k, v in tree_grads.items()}}
        expected = {"h": nodes(output), **{f"root{i}": s for i, s in enumerate(state_n)}}
        expected |= {"dx": nodes(grads["x"]), "dweight_ih": grads["weight_ih"], "dweight_hh": grads["weight_hh"]}
        expected["dbias"] = grads["bias_ih"]
        assert_results_close(actual, {k: v.astype(np.float64) for k, v in expected.items()}, dtype)


def test_binary_form_of_two_equal_weights_is_the_sum():
    """A TreeRNN whose positions share their U adds its children up."""
    case = make_tree_case("rnn", 2, [31, 12], 5, 9, "float64")
    U = case.weights[1][:, :9]
    twice = replace(case, weights=(case.weights[0], np.concatenate([U, U], axis=1), case.weights[2]))
    summed = replace(case, weights=(case.weights[0], U.copy(), case.weights[2]), options={"children": "sum"})
    np.testing.assert_allclose(twice.forward(compiled)[0], summed.forward(compiled)[0], rtol=1e-12)


@every_form
def test_children_in_any_order_and_nodes_by_any_name(cell, children):
    """Renaming the nodes permutes the results, no more."""
    case = make_tree_case(cell, children, [40, 21], 5, 9, "float64")
    trees, rng = case.trees, np.random.default_rng(1)
    names = [rng.permutation(size) for size in np.diff(trees.start)]
    renamed = np.concatenate([name + start for name, start in zip(names, trees.start)])
    parents, positions = [], []
    for k, name in enumerate(names):
        part = slice(trees.start[k], trees.start[k + 1])
        local = np.where(trees.parent[part] < 0, -1, trees.parent[part] - trees.start[k])
        parent, position = np.empty_like(local), np.empty_like(local)
        parent[name], position[name] = np.where(local < 0, -1, name[local]), trees.position[part]
        parents.append(parent)
        positions.append(position)
    other = Trees(parents, None if children == "sum" else positions)
    x, dh = np.empty_like(case.x), np.empty_like(case.dh)
    x[renamed], dh[renamed] = case.x, case.dh
    a, b = case.run(compiled), replace(case, trees=other, x=x, dh=dh).run(compiled)
    for name in a:
        values = b[name][renamed] if name in ("h", "dx") else b[name]
        np.testing.assert_allclose(values, a[name], rtol=1e-10, atol=1e-10, err_msg=name)


# --- Promises ---------------------------------------------------------------------------------------------------------


@every_form
def test_threads_do_not_change_a_bit(cell, children, isa):
    rng = np.random.default_rng(5)
    before = get_num_threads()
    sizes = rng.integers(1, 16, 25).tolist()
    case = make_tree_case(cell, children, sizes, 20, 40, "float32")
    results = []
    try:
        for threads in (1, 2, 3, 8):
            set_num_threads(threads)
            _native.force_plan(threads=threads)
            results.append(case.run(compiled))
    finally:
        _native.force_plan()
        set_num_threads(before)
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


@every_form
def test_nan_stays_in_its_tree(cell, children):
    case = make_tree_case(cell, children, [20, 9, 30, 1], 5, 9, "float32")
    trees = case.trees
    x = case.x.copy()
    x[trees.start[2] + 3] = np.nan
    clean, dirty = case.forward(compiled), replace(case, x=x).forward(compiled)
    touched = np.isnan(dirty[0]).any(axis=1)
    path, node = set(), trees.start[2] + 3
    while node >= 0:
        path.add(int(node))
        node = trees.parent[node]
    assert set(np.flatnonzero(touched)) == path
    np.testing.assert_array_equal(dirty[0][~touched], clean[0][~touched])


@pytest.mark.parametrize("children", ["sum", 2])
def test_saturation(children):
    case = make_tree_case("lstm", children, [20, 9], 5, 9, "float32")
    case = replace(case, x=case.x * 20_000)
    results, expected = case.run(compiled), expect(case)
    assert all(np.isfinite(value).all() for value in results.values())
    for name in ("h", "h_root", "c_root"):  # the last bit of a saturated gate, times 20,000, is all of its gradient
        assert_output_close(results[name], expected[name], "float32", name)


def test_into_adds(isa):
    for cell, children in FORMS:
        case = make_tree_case(cell, children, [20, 9], 5, 9, "float64")
        grads = case.backward(compiled, case.forward(compiled)[-1])
        into = {name: np.ones_like(value) for name, value in grads.items()}
        again = case.backward(compiled, case.forward(compiled)[-1], into=into)
        for name, value in grads.items():
            assert again[name] is into[name]
            np.testing.assert_allclose(into[name], 1 + value, rtol=1e-12, atol=1e-12)


def test_inference_keeps_nothing():
    case = make_tree_case("lstm", 2, [20, 9], 5, 9, "float32")
    *kept, cache = case.forward(compiled)
    *bare, none = case.forward(compiled, training=False)
    assert none is None and cache is not None
    for a, b in zip(kept, bare):
        np.testing.assert_array_equal(a, b)


def test_the_twin():
    """Same names, same parameters, kinds and defaults."""
    for name in reference.__all__:
        ours, theirs = (
            inspect.signature(getattr(module, name)).parameters.values() for module in (reference, compiled)
        )
        assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs], name


# --- What is refused --------------------------------------------------------------------------------------------------


def refusals():
    case = make_tree_case("lstm", 2, [5, 3], 4, 6, "float32")
    trees, (w_ih, w_hh, bias), x = case.trees, case.weights, case.x
    V, leaves = trees.num_nodes, trees.num_leaves
    yield (
        (x[:-1], trees, w_ih, w_hh, bias, 2),
        ValueError,
        f"x: expected shape ({V}, 4), a row per node, or ({leaves}, 4)",
    )
    yield (x[:, :3], trees, w_ih, w_hh, bias, 2), ValueError, "x: expected shape"
    yield (x[None], trees, w_ih, w_hh, bias, 2), ValueError, "x: expected shape"
    yield (x.astype(float), trees, w_ih, w_hh, bias, 2), TypeError, "x: expected float32"
    yield (x.tolist(), trees, w_ih, w_hh, bias, 2), TypeError, "x: expected a NumPy array, got list"
    yield (x, [[1, -1]], w_ih, w_hh, bias, 2), TypeError, "trees: expected fastrnn.Trees, got list"
    yield (x, trees, w_ih[:-1], w_hh, bias, 2), ValueError, "weight_ih: expected shape (4*H, D)"
    yield (x, trees, w_ih, w_hh[:-6], bias, 2), ValueError, "weight_hh: expected shape (30, 12)"
    yield (x, trees, w_ih, w_hh, bias, "sum"), ValueError, "weight_hh: expected shape (24, 6)"
    yield (x, trees, w_ih, None, bias, 2), TypeError, "weight_hh: expected a NumPy array, got NoneType"
    yield (x, trees, w_ih, w_hh, bias[1:], 2), ValueError, "bias: expected shape (24,)"
    yield (x, trees, w_ih, w_hh, bias, 0), ValueError, "children: expected 'sum' or a whole number of at least 1, got 0"
    yield (x, trees, w_ih, w_hh, bias, "two"), ValueError, "children: expected 'sum'"
    yield (x, trees, w_ih, w_hh, bias, 1.5), ValueError, "children: expected 'sum'"
    three = Trees([[3, 3, 3, -1]])
    yield (
        (x, three, w_ih, w_hh, bias, 2),
        ValueError,
        "trees: expected at most 2 children, in positions below 2, got position 2 for node 2 of tree 0",
    )


@pytest.mark.parametrize("arguments, error, said", list(refusals()))
def test_wrong_arguments(arguments, error, said):
    *arguments, children = arguments
    with pytest.raises(error) as caught:
        compiled.tree_lstm_forward(*arguments, children=children)
    assert said in str(caught.value)


def test_wrong_gradients_and_caches():
    case = make_tree_case("lstm", 2, [5, 3], 4, 6, "float32")
    cache = case.forward(compiled)[-1]
    backward = compiled.tree_lstm_backward
    for arguments, name in (
        ((case.dh[1:], None, None), "dh"),
        ((None, case.dh, None), "dh_root"),
        ((None, None, case.dh), "dc_root"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected shape"):
            backward(*arguments, cache)
    with pytest.raises(ValueError, match="^into: expected keys among x, weight_ih, weight_hh, bias, got 'h0'"):
        backward(case.dh, None, None, cache, into={"h0": case.dh})
    with pytest.raises(ValueError, match=r"^into\['bias'\]: expected shape"):
        backward(case.dh, None, None, cache, into={"bias": case.dh})
    with pytest.raises(
        TypeError, match="^cache: expected the cache of tree_rnn_forward in training, got TreeCache of another cell"
    ):
        compiled.tree_rnn_backward(None, None, cache)
    with pytest.raises(TypeError, match="^cache: expected the cache of tree_lstm_forward in training, got TreeCache"):
        backward(None, None, None, _native.TreeCache())
    backward(case.dh, None, None, cache)  # the refusals left it unused
    with pytest.raises(RuntimeError, match="already consumed"):
        backward(case.dh, None, None, cache)
    with pytest.raises(ValueError, match="^nonlinearity: expected one of"):
        compiled.tree_rnn_forward(case.x, case.trees, *case.weights, nonlinearity="softsign")


def test_random_trees_use_every_position():
    trees = random_trees(np.random.default_rng(0), [60, 60], 3)
    only = np.bincount(trees.parent[trees.parent >= 0], minlength=trees.num_nodes) == 1
    assert set(trees.position[np.isin(trees.parent, np.flatnonzero(only))]) == {0, 1, 2}
