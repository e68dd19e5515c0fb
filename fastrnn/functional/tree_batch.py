"""Batches of trees, as `TreeRNN` and `TreeLSTM` take them.

Letters: K trees, V nodes of all trees together, E edges.

`Trees` holds any number of differing trees with their nodes numbered through and checks them. It computes once, with
vectorised NumPy, the order in which the compiled core goes through them: level by level. Level 0 has the leaves of all
trees, level i the nodes whose highest child is at level i - 1. Nodes of one level do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int_]

__all__ = ["Trees"]


class Levels(NamedTuple):
    """The trees as the compiled core walks them; nodes are counted in level order."""

    start: Integers  # (levels + 1,) where each level begins
    order: Integers  # (V,) which node of the user's stands here; those of one level keep their order
    parent: Integers  # (V,); of the root of tree k it is -1 - k
    position: Integers  # (V,) among the parent's children
    first_child: Integers  # (V + 1,) where a node's children begin in `child`
    child: Integers  # (E,) by parent, then by position


class Trees:
    """A batch of rooted, ordered trees.

        trees = Trees([[2, 2, 4, 4, -1], [-1, 0]])        # two trees: five nodes, two nodes
        trees, tokens = Trees.from_nested([((3, 1), 2), 7])

    parents: one sequence of integers per tree: the index of each node's parent within its own tree, -1 for its root;
        nodes in any order. A single sequence of integers is one tree.
    positions: like `parents`: the place of each node among its parent's children, 0, 1, ... (for a root, any value).
        It tells a binary tree's only child on the right from one on the left. None: children stand in the order of
        their indices, without gaps.

    Nodes of the batch are numbered through, tree after tree, in the order in which they came.

    num_trees, num_nodes, num_leaves: sizes of the batch.
    parent (V,): index of each node's parent in the batch, -1 for a root.   position (V,): as above.
    root (K,): the index of each tree's root.   leaf: indices of all leaves, ascending.
    start (K+1,): nodes start[k] to start[k+1]-1 are those of tree k.   height (V,): 0 for leaves.
    max_children: the largest number of children of a node, counting places that are left free before one.

    Raises TypeError for what are no integers, ValueError, naming tree and node, for an index out of range, no root, two
    roots, a cycle, a negative position or two children in one.
    """

    def __init__(self, parents: Any, positions: Any = None) -> None:
        parts = _per_tree("parents", parents)
        if not parts:
            raise ValueError("parents: expected at least one tree, got none")
        sizes = np.array([len(part) for part in parts])
        if not sizes.all():
            raise ValueError(f"parents: expected at least one node in every tree, got none in tree {sizes.argmin()}")
        self.start: Integers = np.concatenate([[0], np.cumsum(sizes)])
        local = np.concatenate(parts)
        tree = np.repeat(np.arange(len(parts)), sizes)
        wrong = (local < -1) | (local >= sizes[tree])
        if wrong.any():
            node = wrong.argmax()
            raise ValueError(
                f"parents: expected -1 or an index in 0..{sizes[tree[node]] - 1}, got {local[node]} "
                f"for {self.name_of(int(node))}"
            )
        self.parent: Integers = np.where(local < 0, -1, local + self.start[tree])
        self.root: Integers = np.flatnonzero(local < 0)
        roots = np.bincount(tree[self.root], minlength=len(parts))
        if (roots != 1).any():
            k = (roots != 1).argmax()
            raise ValueError(f"parents: expected one root (-1) in every tree, got {roots[k]} in tree {k}")
        self.height: Integers = self._heights()
        self.position: Integers = self._positions(positions, sizes)
        self.leaf: Integers = np.flatnonzero(self.height == 0)
        self.max_children = int(self.position[local >= 0].max(initial=-1)) + 1
        self.levels = self._levels()
        for array in (self.start, self.parent, self.root, self.height, self.position, self.leaf, *self.levels):
            array.flags.writeable = False

    @classmethod
    def from_nested(cls, trees: Iterable[Any]) -> tuple[Trees, NDArray[Any]]:
        """Trees from nested tuples or lists, one per tree: a tuple or list is a node and holds its children, None
        stands for a missing child, anything else is a leaf: a token (a whole number) or a vector (an array).

        Nodes are numbered children first: the order in which leaves and closing brackets are read, a root is its
        tree's last. Returns the trees and the leaves' values in the order of `leaf`: tokens (leaves,) or vectors
        (leaves, D). Raises TypeError or ValueError for what is none of these, and for a node without children.
        """
        if isinstance(trees, (str, bytes)) or not isinstance(trees, Iterable):
            raise TypeError(f"trees: expected a sequence of nested trees, got {type(trees).__name__}")
        parents, positions = [], []
        leaves: list[Any] = []
        for k, nested in enumerate(trees):
            parent, position = _unnest(k, nested, leaves)
            parents.append(parent)
            positions.append(position)
        batch = cls(parents, positions)
        try:
            values = np.array(leaves)
        except ValueError:
            values = np.array(leaves, dtype=object)
        if values.dtype.kind not in "iuf" or values.ndim > 2 or (values.ndim == 1 and values.dtype.kind == "f"):
            raise ValueError("trees: expected leaves that are all whole numbers or all vectors of one length")
        return batch, values

    @property
    def num_trees(self) -> int:
        return len(self.root)

    @property
    def num_nodes(self) -> int:
        return len(self.parent)

    @property
    def num_leaves(self) -> int:
        return len(self.leaf)

    def __len__(self) -> int:
        return self.num_trees

    def __repr__(self) -> str:
        return f"Trees(num_trees={self.num_trees}, num_nodes={self.num_nodes}, height={self.height.max()})"

    # --- what the constructor works out -------------------------------------------------------------------------------

    def name_of(self, node: int) -> str:
        """In words, for errors."""
        k = np.searchsorted(self.start, node, side="right") - 1
        return f"node {node - self.start[k]} of tree {k}"

    def _heights(self) -> Integers:
        """Heights by pointer doubling: log2(depth) passes over all nodes, whatever the shape, a chain included.

        After r passes `above` is the ancestor 2^r levels up, `depth` the number of ancestors within that distance and
        `deepest` the deepest node below within it.
        """
        above, depth = self.parent, (self.parent >= 0).astype(int)
        while (above >= 0).any():
            depth = depth + np.where(above >= 0, depth[above], 0)
            above = np.where(above >= 0, above[above], -1)
            if depth.max() > len(depth):  # so far above, only nodes of a cycle are left
                raise ValueError(f"parents: expected trees, got a cycle through {self.name_of(above.max())}")
        above, deepest = self.parent, depth.copy()
        while (linked := above >= 0).any():
            np.maximum.at(deepest, above[linked], deepest[linked])
            above = np.where(linked, above[above], -1)
        heights: Integers = deepest - depth
        return heights

    def _positions(self, positions: Any, sizes: Integers) -> Integers:
        child = np.flatnonzero(self.parent >= 0)
        result = np.zeros(self.num_nodes, int)
        if positions is None:
            child = child[np.argsort(self.parent[child], kind="stable")]
            above = self.parent[child]
            result[child] = np.arange(len(child)) - np.searchsorted(above, above)
            return result
        parts = _per_tree("positions", positions)
        if [len(part) for part in parts] != sizes.tolist():
            raise ValueError(
                f"positions: expected as many trees and nodes as in parents, {sizes.tolist()}, got "
                f"{[len(part) for part in parts]}"
            )
        result[child] = np.concatenate(parts)[child]
        if result.min() < 0:
            raise ValueError(
                f"positions: expected 0 or more, got {result.min()} for {self.name_of(int(result.argmin()))}"
            )
        child = child[np.lexsort((result[child], self.parent[child]))]
        same = (self.parent[child][1:] == self.parent[child][:-1]) & (result[child][1:] == result[child][:-1])
        if same.any():
            node = child[same.argmax()]
            raise ValueError(
                f"positions: expected one child in each, got two in {result[node]} of "
                f"{self.name_of(int(self.parent[node]))}"
            )
        return result

    def _levels(self) -> Levels:
        order = np.argsort(self.height, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        parent = self.parent[order]
        parent = np.where(parent >= 0, rank[parent], 0)
        parent[rank[self.root]] = -1 - np.arange(self.num_trees)
        position = self.position[order]
        child = np.flatnonzero(parent >= 0)
        child = child[np.lexsort((position[child], parent[child]))]
        return Levels(
            start=np.searchsorted(self.height[order], np.arange(self.height.max() + 2)),
            order=order,
            parent=parent,
            position=position,
            first_child=np.searchsorted(parent[child], np.arange(self.num_nodes + 1)),
            child=child,
        )


def _per_tree(name: str, values: Any) -> list[Integers]:
    """One array of integers per tree."""
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)):
        raise TypeError(f"{name}: expected one sequence of integers per tree, got {type(values).__name__}")
    single = len(values) > 0 and not isinstance(values[0], (Sequence, np.ndarray))
    parts = [values] if single else list(values)
    arrays = []
    for k, part in enumerate(parts):
        try:
            array = np.asarray(part)
        except ValueError:
            array = np.empty(0, object)
        if array.size == 0 and array.ndim == 1 and array.dtype != object:
            array = array.astype(int)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TypeError(
                f"{name}: expected one sequence of integers per tree, got "
                f"{type(part).__name__} of {array.dtype} with {array.ndim} axes for tree {k}"
            )
        arrays.append(array.astype(np.int_, copy=False))
    return arrays


def _unnest(k: int, nested: Any, leaves: list[Any]) -> tuple[list[int], list[int]]:
    """Parents and positions of one nested tree, children first; appends its leaves. With a stack of its own: a chain
    may be deeper than Python's."""
    parent: list[int] = []
    position: list[int] = []
    # An entry is a node, its place, and the indices of its children so far: None before it was opened.
    top: list[int] = []
    stack: list[tuple[Any, int, list[int], list[int] | None]] = [(nested, 0, top, None)]
    while stack:
        node, place, siblings, children = stack.pop()
        if not isinstance(node, (tuple, list)):
            if isinstance(node, bool) or not (isinstance(node, (int, np.integer)) or np.ndim(node) == 1):
                raise TypeError(f"trees: expected leaves that are whole numbers or vectors, got {node!r} in tree {k}")
            leaves.append(node)
        elif children is None:
            children = []
            stack.append((node, place, siblings, children))
            stack.extend(
                (child, i, children, None) for i, child in reversed(list(enumerate(node))) if child is not None
            )
            continue
        elif not children:
            raise ValueError(f"trees: expected a child in every node, got {node!r} in tree {k}")
        for child in children or ():
            parent[child] = len(parent)
        siblings.append(len(parent))
        parent.append(-1)
        position.append(place)
    return parent, position
