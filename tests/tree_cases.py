"""Random trees and random arguments of the tree networks, for the tests of both.

Letters: V nodes of all trees, K trees, D input_size, H hidden_size, N children per node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from fastrnn import Trees

# (cell, children) in every form.
FORMS = [("rnn", "sum"), ("rnn", 2), ("rnn", 3), ("lstm", "sum"), ("lstm", 1), ("lstm", 2), ("lstm", 3)]
FORM_IDS = [f"{cell}-{children}" for cell, children in FORMS]


def random_parents(rng: np.random.Generator, nodes: int, most: int = 10**9) -> np.ndarray:
    """A random tree whose nodes have at most `most` children, its nodes in random order."""
    free = [most]
    parent = [-1]
    for _node in range(1, nodes):
        above = rng.choice(np.flatnonzero(free))
        parent.append(above)
        free[above] -= 1
        free.append(most)
    name = rng.permutation(nodes)
    result = np.empty(nodes, int)
    result[name] = [-1 if above < 0 else name[above] for above in parent]
    return result


def random_trees(rng: np.random.Generator, sizes: list[int], children: Any) -> Trees:
    """Trees of these sizes; in the N-ary form some children stand at other positions than their order's."""
    if children == "sum":
        return Trees([random_parents(rng, size) for size in sizes])
    parents = [random_parents(rng, size, children) for size in sizes]
    positions = [np.zeros(size, int) for size in sizes]
    for parent, position in zip(parents, positions):
        for node in range(len(parent)):
            below = np.flatnonzero(parent == node)
            position[below] = rng.choice(children, len(below), replace=False)
    return Trees(parents, positions)


@dataclass(frozen=True)
class TreeCase:
    """Arguments of one call, and the gradients that arrive from above."""

    cell: str
    options: dict[str, Any]
    trees: Trees
    x: np.ndarray
    weights: tuple[np.ndarray | None, ...]  # weight_ih, weight_hh, bias
    dh: np.ndarray | None  # (V, H)
    droot: tuple[np.ndarray | None, ...]  # (K, H) each: of h and, for the LSTM, of c

    def astype(self, dtype: Any) -> TreeCase:
        def cast(a: np.ndarray | None) -> np.ndarray | None:
            return None if a is None else a.astype(dtype)

        return replace(
            self,
            x=cast(self.x),
            weights=tuple(map(cast, self.weights)),
            dh=cast(self.dh),
            droot=tuple(map(cast, self.droot)),
        )

    def forward(self, module: ModuleType, **kwargs: Any) -> tuple[Any, ...]:
        function = getattr(module, f"tree_{self.cell}_forward")
        return function(self.x, self.trees, *self.weights, **self.options, **kwargs)

    def backward(self, module: ModuleType, cache: Any, **kwargs: Any) -> dict[str, Any]:
        return getattr(module, f"tree_{self.cell}_backward")(self.dh, *self.droot, cache, **kwargs)

    def run(self, module: ModuleType) -> dict[str, Any]:
        """All results by name, gradients with a d before it."""
        *outputs, cache = self.forward(module)
        results = dict(zip(("h", "h_root", "c_root"), outputs))
        return results | {"d" + name: grad for name, grad in self.backward(module, cache).items()}


def make_tree_case(
    cell: str,
    children: Any,
    sizes: list[int],
    D: int,
    H: int,
    dtype: str,
    *,
    at_leaves: bool = False,
    seed: int = 0,
    nonlinearity: str = "tanh",
) -> TreeCase:
    rng = np.random.default_rng([seed, D, H, len(sizes)])
    trees = random_trees(rng, sizes, children)
    N = 1 if children == "sum" else children
    G, recurrent = (4, 3 + N) if cell == "lstm" else (1, 1)

    def normal(*size: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(size)).astype(dtype)

    # A sum over many children would leave the range in which g is not flat.
    scale = 0.3 if children == "sum" else 0.8
    return TreeCase(
        cell,
        {"children": children} | ({"nonlinearity": nonlinearity} if cell == "rnn" else {}),
        trees,
        normal(trees.num_leaves if at_leaves else trees.num_nodes, D),
        (
            normal(G * H, D, scale=D**-0.5),
            normal(recurrent * H, N * H, scale=scale * (N * H) ** -0.5),
            normal(G * H, scale=0.3),
        ),
        normal(trees.num_nodes, H),
        tuple(normal(trees.num_trees, H) for _ in range(2 if cell == "lstm" else 1)),
    )
