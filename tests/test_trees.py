"""Trees: what the structure holds, how it is built, and what it refuses."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from tree_cases import random_parents

from fastrnn import Trees


def test_what_a_small_batch_holds():
    """4            1
     3   2        |
    0 1           0      with nodes in no particular order: the root of the first tree is node 1"""
    trees = Trees([[4, -1, 1, 4, 1], [1, -1]])
    assert (trees.num_trees, trees.num_nodes, trees.num_leaves, trees.max_children) == (2, 7, 4, 2)
    np.testing.assert_array_equal(trees.parent, [4, -1, 1, 4, 1, 6, -1])
    np.testing.assert_array_equal(trees.position, [0, 0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(trees.height, [0, 2, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(trees.root, [1, 6])
    np.testing.assert_array_equal(trees.leaf, [0, 2, 3, 5])
    np.testing.assert_array_equal(trees.start, [0, 5, 7])
    assert len(trees) == 2 and repr(trees) == "Trees(num_trees=2, num_nodes=7, height=2)"


def test_one_sequence_is_one_tree():
    for parents in ([1, -1], (1, -1), np.array([1, -1], np.int8), [np.int64(1), -1], [[1, -1]], [(1, -1)]):
        trees = Trees(parents)
        assert trees.num_trees == 1 and trees.parent.tolist() == [1, -1]


@pytest.mark.parametrize("seed", range(20))
def test_random_trees_against_loops(seed):
    rng = np.random.default_rng(seed)
    parents = [random_parents(rng, int(rng.integers(1, 60))) for _ in range(rng.integers(1, 9))]
    trees = Trees(parents)

    def height(node):
        return max((1 + height(k) for k in np.flatnonzero(trees.parent == node)), default=0)

    assert trees.height.tolist() == [height(node) for node in range(trees.num_nodes)]
    levels = trees.levels
    rank = np.argsort(levels.order)
    assert sorted(levels.order) == list(range(trees.num_nodes))
    for level, (begin, end) in enumerate(zip(levels.start[:-1], levels.start[1:])):
        assert set(trees.height[levels.order[begin:end]]) == {level}
    for node in range(trees.num_nodes):
        children = levels.child[levels.first_child[rank[node]] : levels.first_child[rank[node] + 1]]
        assert levels.order[children].tolist() == np.flatnonzero(trees.parent == node).tolist()
        above = levels.parent[rank[node]]
        assert trees.parent[node] == (levels.order[above] if above >= 0 else -1)
        assert above >= 0 or trees.root[-1 - above] == node


def test_a_long_chain_takes_no_loop_over_levels():
    trees = Trees(np.append(np.arange(1, 50_000), -1))
    np.testing.assert_array_equal(trees.height, np.arange(50_000))


def test_arrays_are_read_only():
    trees = Trees([1, -1])
    with pytest.raises(ValueError, match="read-only"):
        trees.parent[0] = -1
    for twin in (pickle.loads(pickle.dumps(trees)), copy.deepcopy(trees)):
        assert twin.parent.tolist() == [1, -1] and twin.levels.start.tolist() == [0, 1, 2]


# --- Nested sequences -------------------------------------------------------------------------------------------------


def test_from_nested():
    trees, tokens = Trees.from_nested([((3, 1), 2), 7, [4, [5, 6, 8]]])
    np.testing.assert_array_equal(tokens, [3, 1, 2, 7, 4, 5, 6, 8])
    np.testing.assert_array_equal(trees.parent, [2, 2, 4, 4, -1, -1, 11, 10, 10, 10, 11, -1])
    np.testing.assert_array_equal(trees.leaf, [0, 1, 3, 5, 6, 7, 8, 9])
    assert trees.max_children == 3


def test_from_nested_leaves_may_be_vectors_and_children_missing():
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    trees, vectors = Trees.from_nested([(None, a), (b, None)])
    np.testing.assert_array_equal(vectors, [a, b])
    np.testing.assert_array_equal(trees.position, [1, 0, 0, 0])
    assert trees.max_children == 2


def test_from_nested_deeper_than_pythons_stack():
    nested = 1
    for _ in range(5000):
        nested = (nested,)
    trees, tokens = Trees.from_nested([nested])
    assert trees.height.max() == 5000 and tokens.tolist() == [1]


@pytest.mark.parametrize(
    ("nested", "error", "said"),
    [
        ([()], ValueError, "a child in every node, got () in tree 0"),
        ([1, (None, None)], ValueError, "a child in every node, got (None, None) in tree 1"),
        (["word"], TypeError, "whole numbers or vectors, got 'word'"),
        ([(1, 2.5)], TypeError, "whole numbers or vectors, got 2.5"),
        ([(True, 1)], TypeError, "whole numbers or vectors, got True"),
        ([(1, np.ones(2))], ValueError, "all whole numbers or all vectors of one length"),
        ([(np.ones(3), np.ones(2))], ValueError, "all whole numbers or all vectors of one length"),
        ([None], TypeError, "whole numbers or vectors, got None"),
        (5, TypeError, "a sequence of nested trees, got int"),
        ("(1 2)", TypeError, "a sequence of nested trees, got str"),
        ([], ValueError, "at least one tree"),
    ],
)
def test_from_nested_refuses(nested, error, said):
    with pytest.raises(error) as caught:
        Trees.from_nested(nested)
    assert said in str(caught.value)


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parents", "error", "said"),
    [
        ([], ValueError, "parents: expected at least one tree, got none"),
        ([[-1], []], ValueError, "parents: expected at least one node in every tree, got none in tree 1"),
        ([[-1], [-1, 2]], ValueError, "parents: expected -1 or an index in 0..1, got 2 for node 1 of tree 1"),
        ([[-2]], ValueError, "parents: expected -1 or an index in 0..0, got -2 for node 0 of tree 0"),
        ([[-1], [1, 0]], ValueError, "parents: expected one root (-1) in every tree, got 0 in tree 1"),
        ([[-1, -1]], ValueError, "parents: expected one root (-1) in every tree, got 2 in tree 0"),
        ([[1, -1], [-1, 2, 1]], ValueError, "parents: expected trees, got a cycle through node 2 of tree 1"),
        ([[-1, 1]], ValueError, "parents: expected trees, got a cycle through node 1 of tree 0"),
        ([[2, 0, 1, 0, -1]], ValueError, "parents: expected trees, got a cycle through node 2 of tree 0"),
        ([[0.0, -1.0]], TypeError, "parents: expected one sequence of integers per tree, got list of float64"),
        ([["a"]], TypeError, "parents: expected one sequence of integers per tree, got list"),
        ([[[-1]]], TypeError, "with 2 axes for tree 0"),
        ([[-1, [0]]], TypeError, "parents: expected one sequence of integers per tree"),
        (3, TypeError, "parents: expected one sequence of integers per tree, got int"),
        (None, TypeError, "parents: expected one sequence of integers per tree, got NoneType"),
    ],
)
def test_wrong_parents(parents, error, said):
    with pytest.raises(error) as caught:
        Trees(parents)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("positions", "error", "said"),
    [
        ([[0, 0, 9], [0]], ValueError, "positions: expected one child in each, got two in 0 of node 2 of tree 0"),
        ([[0, -1, 9], [0]], ValueError, "positions: expected 0 or more, got -1 for node 1 of tree 0"),
        ([[0, 1, 9]], ValueError, "positions: expected as many trees and nodes as in parents"),
        ([[0, 1], [0]], ValueError, "positions: expected as many trees and nodes as in parents"),
        ([[0, 1.5, 0], [0]], TypeError, "positions: expected one sequence of integers per tree"),
    ],
)
def test_wrong_positions(positions, error, said):
    with pytest.raises(error) as caught:
        Trees([[2, 2, -1], [-1]], positions)
    assert said in str(caught.value)
