"""TreeLSTM, forward+backward, on 256 random binary trees of 20 to 60 leaves, against a node-by-node PyTorch loop.

Letters: D input_size, H hidden_size. The loop's cell is one linear layer for all gates of a node, as a careful user
writes it; PyTorch has no layer for trees. Words are at the leaves, every node has a gradient from outside.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

import fastrnn

D = H = 150
TREES, LEAVES = 256, (20, 60)


def random_binary_tree(rng: np.random.Generator, leaves: int) -> np.ndarray:
    """Parents: two random neighbours become one node until one is left."""
    parent, row = np.full(2 * leaves - 1, -1), list(range(leaves))
    for node in range(leaves, 2 * leaves - 1):
        i = rng.integers(len(row) - 1)
        parent[row[i : i + 2]] = node
        row[i : i + 2] = [node]
    return parent


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    parents = [random_binary_tree(rng, int(rng.integers(LEAVES[0], LEAVES[1] + 1))) for _ in range(TREES)]
    trees = fastrnn.Trees(parents)
    x = rng.standard_normal((trees.num_leaves, D), dtype=np.float32)
    dh = rng.standard_normal((trees.num_nodes, H), dtype=np.float32)
    return parents, trees, x, dh


def fastrnn_step(layer, trees, x, dh):
    layer.zero_grad()
    h, _ = layer(x, trees, training=True)
    return h, layer.backward(dh)


class TorchLoop:
    """The same layer's weights, the same trees, node by node."""

    def __init__(self, torch, layer, trees, x, dh):
        self.torch, self.children, self.dh = torch, layer.children, torch.from_numpy(dh)
        self.x, *self.weights = (
            torch.tensor(a, requires_grad=True)
            for a in (x, *(layer.params[k] for k in ("weight_ih", "weight_hh", "bias")))
        )
        self.below: list[list[int]] = [[] for _ in range(trees.num_nodes)]
        for node, above in enumerate(trees.parent):
            if above >= 0:
                self.below[above].append(node)
        self.order = trees.levels.order.tolist()
        self.row = {node: row for row, node in enumerate(trees.leaf.tolist())}

    def step(self):
        torch, linear = self.torch, self.torch.nn.functional.linear
        for a in (self.x, *self.weights):
            a.grad = None
        W, U, b = self.weights
        (W_i, _, W_g, W_o), (b_i, b_f, b_g, b_o) = W.chunk(4), b.chunk(4)
        leaf_W, leaf_b = torch.cat([W_i, W_o, W_g]), torch.cat([b_i, b_o, b_g])
        if self.children == "sum":
            U_i, U_f, U_g, U_o = U.chunk(4)
            inner_U, inner_b = torch.cat([U_i, U_o, U_g]), leaf_b
        else:
            U_i, U_f0, U_f1, U_g, U_o = U.chunk(5)
            inner_U, inner_b = torch.cat([U_i, U_o, U_f0, U_f1, U_g]), torch.cat([b_i, b_o, b_f, b_f, b_g])
        words, h, c = self.x.unbind(0), [None] * len(self.below), [None] * len(self.below)
        for node in self.order:
            below = self.below[node]
            if not below:
                a = linear(words[self.row[node]], leaf_W, leaf_b)
                i, o = torch.sigmoid(a[: 2 * H]).chunk(2)
                c[node] = i * torch.tanh(a[2 * H :])
            elif self.children == "sum":
                children = torch.stack([h[k] for k in below])
                a = linear(children.sum(0), inner_U, inner_b)
                i, o = torch.sigmoid(a[: 2 * H]).chunk(2)
                f = torch.sigmoid(linear(children, U_f, b_f))
                c[node] = i * torch.tanh(a[2 * H :]) + (f * torch.stack([c[k] for k in below])).sum(0)
            else:
                left, right = below
                a = linear(torch.cat((h[left], h[right])), inner_U, inner_b)
                i, o, f0, f1 = torch.sigmoid(a[: 4 * H]).chunk(4)
                c[node] = i * torch.tanh(a[4 * H :]) + f0 * c[left] + f1 * c[right]
            h[node] = o * torch.tanh(c[node])
        h = torch.stack(h)
        h.backward(self.dh)
        return h.detach().numpy(), self.x.grad.numpy()


every_form = pytest.mark.parametrize("children", ["sum", 2])


@every_form
def test_fastrnn(benchmark, problem, children):
    _, trees, x, dh = problem
    benchmark.group = f"TreeLSTM children={children}"
    layer = fastrnn.TreeLSTM(D, H, children=children, rng=0)
    benchmark.pedantic(fastrnn_step, (layer, trees, x, dh), warmup_rounds=2, rounds=10)


@every_form
def test_torch_loop(benchmark, problem, children):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(fastrnn.get_num_threads())
    _, trees, x, dh = problem
    benchmark.group = f"TreeLSTM children={children}"
    layer = fastrnn.TreeLSTM(D, H, children=children, rng=0)
    loop = TorchLoop(torch, layer, trees, x, dh)
    for ours, theirs in zip(fastrnn_step(layer, trees, x, dh), loop.step()):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    for name, weight in zip(("weight_ih", "weight_hh", "bias"), loop.weights):
        theirs = weight.grad.numpy()
        np.testing.assert_allclose(layer.grads[name], theirs, atol=2e-5 * np.abs(theirs).max(), err_msg=name)
    time.sleep(0.05)  # our threads must have stopped spinning
    benchmark.pedantic(loop.step, rounds=2)


def test_building_the_trees(benchmark, problem):
    benchmark(fastrnn.Trees, problem[0])
