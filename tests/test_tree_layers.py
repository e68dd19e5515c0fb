"""TreeRNN and TreeLSTM as layers, and that they learn.

Letters: V nodes of all trees, K trees, D input_size, H hidden_size, N children per node.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tree_cases import FORM_IDS, FORMS, make_tree_case

import fastrnn
from fastrnn.layers import build
from fastrnn.reference import tree as reference

every_form = pytest.mark.parametrize("cell, children", FORMS, ids=FORM_IDS)


def make(cell, children, D=4, H=6, **options):
    return {"rnn": fastrnn.TreeRNN, "lstm": fastrnn.TreeLSTM}[cell](D, H, children=children, rng=0, **options)


@every_form
@pytest.mark.parametrize("bias", [True, False])
def test_layer_is_the_reference_with_its_parameters(cell, children, bias):
    case = make_tree_case(cell, children, [9, 1, 14], 4, 6, "float64")
    layer = make(cell, children, dtype=np.float64, bias=bias)
    parameters = [layer.params.get(name) for name in ("weight_ih", "weight_hh", "bias")]
    *expected, cache = getattr(reference, f"tree_{cell}_forward")(case.x, case.trees, *parameters, **case.options)
    h, root = layer(case.x, case.trees, training=True)
    for a, b in zip((h, *(root if cell == "lstm" else (root,))), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    grads = getattr(reference, f"tree_{cell}_backward")(case.dh, *case.droot, cache)
    droot = case.droot if cell == "lstm" else case.droot[0]
    np.testing.assert_allclose(layer.backward(case.dh, droot), grads["x"], rtol=1e-11, atol=1e-12)
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grad, grads[name], rtol=1e-11, atol=1e-12, err_msg=name)


def test_losses_at_the_root_and_at_every_node_add_up():
    case = make_tree_case("lstm", 2, [9, 5], 4, 6, "float64")
    layer = make("lstm", 2, dtype=np.float64)

    def dx(*arguments):
        layer(case.x, case.trees, training=True)
        return layer.backward(*arguments)

    parts = dx(case.dh) + dx(None, case.droot[0]) + dx(None, (None, case.droot[1]))
    np.testing.assert_allclose(dx(case.dh, case.droot), parts, rtol=1e-10, atol=1e-12)
    at_roots = np.zeros_like(case.dh)
    at_roots[case.trees.root] = case.droot[0]
    np.testing.assert_allclose(dx(at_roots), dx(None, case.droot[0]), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(dx(), 0)


@every_form
def test_config_state_dict_and_copies(cell, children):
    layer = make(cell, children, dtype="float64", bias=False)
    case = make_tree_case(cell, children, [9, 5], 4, 6, "float64")
    twin = build(layer.config())
    twin.load_state_dict(layer.state_dict())
    for other in (twin, copy.deepcopy(layer)):
        assert repr(other) == repr(layer)
        np.testing.assert_array_equal(other(case.x, case.trees)[0], layer(case.x, case.trees)[0])


def test_shapes_and_options():
    shapes = {name: param.shape for name, param in make("lstm", 2).params.items()}
    assert shapes == {"weight_ih": (24, 4), "weight_hh": (30, 12), "bias": (24,)}
    shapes = {name: param.shape for name, param in make("rnn", 3).params.items()}
    assert shapes == {"weight_ih": (6, 4), "weight_hh": (6, 18), "bias": (6,)}
    bias = make("lstm", "sum", forget_bias=1.0).params["bias"]
    assert (bias[6:12] == 1).all() and not (np.delete(bias, np.s_[6:12]) == 1).any()


@pytest.mark.parametrize(
    ("construct", "error", "said"),
    [
        (
            lambda: fastrnn.TreeLSTM(4, 6, children=0),
            ValueError,
            "children: expected 'sum' or a whole number of at least 1",
        ),
        (lambda: fastrnn.TreeLSTM(4, 6, children=True), ValueError, "children: expected 'sum'"),
        (lambda: fastrnn.TreeRNN(4, 6, nonlinearity="softsign"), ValueError, "nonlinearity: expected one of"),
        (lambda: fastrnn.TreeLSTM(0, 6), ValueError, "input_size: expected"),
        (lambda: fastrnn.TreeLSTM(4, 6, bias=False, forget_bias=1), ValueError, "forget_bias: expected None"),
        (lambda: fastrnn.TreeRNN(4, 6, dtype=np.int32), TypeError, "dtype: expected float32 or float64"),
    ],
)
def test_wrong_constructions(construct, error, said):
    with pytest.raises(error) as caught:
        construct()
    assert said in str(caught.value)


def test_backward_needs_a_training_call():
    layer = make("lstm", 2)
    case = make_tree_case("lstm", 2, [9, 5], 4, 6, "float32")
    layer(case.x, case.trees)
    with pytest.raises(RuntimeError, match="^TreeLSTM.backward: expected a call with training=True"):
        layer.backward(case.dh)
    layer(case.x, case.trees, training=True)
    with pytest.raises(ValueError, match=r"^droot: expected \(dh_root, dc_root\), got 3 entries"):
        layer.backward(case.dh, (None, None, None))
    layer.backward(case.dh)
    with pytest.raises(RuntimeError):
        layer.backward(case.dh)


# --- Boolean expressions: tokens at the leaves, a loss at the roots or at every node ----------------------------------

FALSE, TRUE, AND, OR, XOR = range(5)


def random_expression(rng, operators):
    """A random expression as nested (operator, left, right), its value, and those of all nodes, children first; the
    leaf of an operator has its own token for a value, which no loss looks at."""
    if operators == 0:
        value = int(rng.integers(2))
        return value, value, [value]
    split = int(rng.integers(operators))
    (a, x, left), (b, y, right) = random_expression(rng, split), random_expression(rng, operators - 1 - split)
    operator = int(rng.integers(AND, XOR + 1))
    value = {AND: x & y, OR: x | y, XOR: x ^ y}[operator]
    return (operator, a, b), value, [operator, *left, *right, value]


@pytest.mark.parametrize(
    ("children", "every_node"),
    [("sum", False), (3, False), (3, True)],
    ids=["sum-root", "ternary-root", "ternary-nodes"],
)
def test_boolean_expressions_are_learned(children, every_node):
    """Trained on expressions of 1 to 4 operators, tested on other ones of up to 6: over 99% of the roots are right."""
    rng = np.random.default_rng(0)
    layers = {
        "embedding": fastrnn.Embedding(5, 16, rng=1),
        "tree": fastrnn.TreeLSTM(16, 32, children=children, forget_bias=1.0, rng=1),
        "linear": fastrnn.Linear(32, 2, rng=1),
    }
    params, grads = (
        {f"{name}.{key}": array for name, layer in layers.items() for key, array in getattr(layer, arrays).items()}
        for arrays in ("params", "grads")
    )
    optimizer = fastrnn.Adam(lr=1e-2)

    def batch(size, operators):
        expressions, roots, nodes = zip(*(random_expression(rng, rng.integers(1, operators + 1)) for _ in range(size)))
        return *fastrnn.Trees.from_nested(expressions), np.array(roots), np.concatenate(nodes)

    for _ in range(160):
        trees, tokens, roots, nodes = batch(64, 4)
        h, (h_root, _) = layers["tree"](layers["embedding"](tokens, training=True), trees, training=True)
        logits = layers["linear"](h if every_node else h_root, training=True)
        targets = np.where(nodes < AND, nodes, -100) if every_node else roots
        _, dlogits = fastrnn.losses.cross_entropy(logits, targets)
        dh = layers["linear"].backward(dlogits)
        layers["embedding"].backward(layers["tree"].backward(dh) if every_node else layers["tree"].backward(None, dh))
        fastrnn.clip_grad_norm(grads, 5.0)
        optimizer.step(params, grads)
        for layer in layers.values():
            layer.zero_grad()

    trees, tokens, roots, _ = batch(2000, 6)
    _, (h_root, _) = layers["tree"](layers["embedding"](tokens), trees)
    assert (layers["linear"](h_root).argmax(axis=1) == roots).mean() > 0.99


# --- weights that stay packed -------------------------------------------------------------------------------------


def packing_anew(layer, x, trees):
    """h, h_root, c_root by the functional core, which packs in each call."""
    weights = [layer._params.get(name) for name in ("weight_ih", "weight_hh", "bias")]
    if isinstance(layer, fastrnn.TreeLSTM):
        found = fastrnn.functional.tree_lstm_forward(x, trees, *weights, children=layer.child_form, training=False)
        return found[:3]
    options = {"children": layer.child_form, "nonlinearity": layer.nonlinearity, "training": False}
    return fastrnn.functional.tree_rnn_forward(x, trees, *weights, **options)[:2]


def outputs(layer, x, trees):
    h, root = layer(x, trees)
    return (h, *root) if isinstance(root, tuple) else (h, root)


def same(a, b):
    return len(a) == len(b) and all(x.shape == y.shape and np.array_equal(x, y) for x, y in zip(a, b))


@every_form
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_give_the_bits_of_packing_anew_and_are_packed_once(cell, children, bias, dtype):
    layer = make(cell, children, 5, 19, bias=bias, dtype=dtype)
    rng = np.random.default_rng(0)
    before, isa = fastrnn.get_num_threads(), fastrnn._native.isa()
    generation = None
    try:
        for sizes in ([1], [9, 1, 14], [60] * 8):
            trees = make_tree_case(cell, children, sizes, 5, 19, dtype).trees
            for rows in (trees.num_nodes, trees.num_leaves):
                x = rng.standard_normal((rows, 5)).astype(dtype)
                expected = packing_anew(layer, x, trees)
                for threads in (1, 2, 3, 8):
                    fastrnn.set_num_threads(threads)
                    fastrnn._native.force_plan(threads=threads)
                    assert same(outputs(layer, x, trees), expected)
                    generation = layer._stack.generation if generation is None else generation
                    assert layer._stack.generation == generation
        for other in (*fastrnn._native.isas(), isa):
            fastrnn._native.use_isa(other)
            assert same(outputs(layer, x, trees), packing_anew(layer, x, trees))
    finally:
        fastrnn._native.use_isa(isa)
        fastrnn.set_num_threads(before)
        fastrnn._native.force_plan()


class Writer:
    """Somebody who writes to a layer's weights, or holds what they can be written through later."""

    def __init__(self, layer, trees, x):
        self.layer, self.trees, self.x, self.held, self.count = layer, trees, x, [], 0

    def value(self):
        self.count += 1
        return np.float32(self.count / 8)

    def hold_dict(self):
        params = self.layer.params
        self.held.append(lambda: params["bias"].fill(self.value()))

    def hold_array(self):
        array = self.layer.params["weight_hh"]
        self.held.append(lambda: array.__setitem__((0, 0), self.value()))

    def hold_view(self):
        view = self.layer.params["weight_ih"].T[1:, ::2]
        self.held.append(lambda: view.fill(self.value()))

    def hold_memory(self):
        memory = memoryview(self.layer.params["bias"])
        self.held.append(lambda: memory.__setitem__(0, float(self.value())))

    def write(self):
        for write in self.held:
            write()

    def write_and_let_go(self):
        self.write()
        self.held.clear()

    def write_once(self):
        self.layer.params["weight_hh"][1] += self.value()

    def exchange_two_weights(self):
        w = self.layer.params["weight_ih"]
        w[[0, 1]] = w[[1, 0]]

    def replace(self):
        self.layer.params["bias"] = np.full_like(self.layer.params["bias"], self.value())

    def train(self):
        h, _ = self.layer(self.x, self.trees, training=True)
        self.layer.backward(np.ones_like(h))
        fastrnn.Adam(lr=0.1).step(self.layer.params, self.layer.grads)
        self.layer.zero_grad()

    def load(self):
        self.layer.load_state_dict({name: a + self.value() for name, a in self.layer.state_dict().items()})

    def prepare_and_release(self):
        self.layer.prepare()
        self.layer(self.x, self.trees)
        self.layer.release()

    def release(self):
        self.layer.release()


ACTIONS = sorted(name for name, value in vars(Writer).items() if callable(value) and name[0] != "_" and name != "value")


@pytest.mark.parametrize("cell, children", [("lstm", "sum"), ("lstm", 3), ("rnn", "sum")])
def test_no_way_to_change_a_weight_gives_a_stale_result(cell, children):
    case = make_tree_case(cell, children, [6, 3], 4, 6, "float32")
    rng = np.random.default_rng(0)
    pairs = [[a, b] for a in ACTIONS for b in ACTIONS]
    for actions in [*pairs, *(rng.choice(ACTIONS, 12).tolist() for _ in range(60))]:
        layer = make(cell, children)
        writer = Writer(layer, case.trees, case.x)
        layer(case.x, case.trees)
        for action in actions:
            getattr(writer, action)()
            found = outputs(layer, case.x, case.trees)
            assert same(found, packing_anew(layer, case.x, case.trees)), actions


def test_a_prepared_layer_over_trees_is_read_only_until_it_is_trained():
    case = make_tree_case("lstm", "sum", [6, 3], 4, 6, "float32")
    layer = make("lstm", "sum")
    expected = outputs(layer, case.x, case.trees)
    layer.prepare()
    generation = layer._stack.generation
    with pytest.raises(ValueError, match="read-only"):
        layer.params["bias"][0] = 1
    assert same(outputs(layer, case.x, case.trees), expected)
    assert layer._stack.generation == generation
    layer(case.x, case.trees, training=True)
    layer.params["bias"][0] = 1
    assert not same(outputs(layer, case.x, case.trees), expected)
    twin = copy.deepcopy(layer)
    assert same(outputs(twin, case.x, case.trees), outputs(layer, case.x, case.trees))
