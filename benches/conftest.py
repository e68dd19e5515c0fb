"""A contender is timed only after its results were found equal to the others'."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import fastrnn
from fastrnn.bench import PEERS, Shape
from fastrnn.bench.peers import FastRNN, Peer, make_problem
from fastrnn.bench.run import check_equal

LONGEST_SETTLING = max(peer.settling for peer in (FastRNN, *PEERS.values()))


@pytest.fixture
def checked() -> Callable[[type[Peer], str, Shape, str], Peer]:
    """checked(peer_class, cell, shape, mode): the peer, which agrees with fastrnn; fastrnn with the reference."""

    def make(peer_class: type[Peer], cell: str, shape: Shape, mode: str) -> Peer:
        if peer_class.missing():
            pytest.skip(f"{' and '.join(peer_class.missing())} not installed")
        peer_class.set_num_threads(fastrnn.get_num_threads())
        problem = make_problem(cell, shape)
        peer = peer_class(problem)
        other = PEERS["numpy"](problem) if peer_class is FastRNN else FastRNN(problem)
        check_equal({one.name: one for one in (peer, other)}, mode)
        time.sleep(LONGEST_SETTLING)  # threads of the peer before, and of the other here, must have stopped spinning
        return peer

    return make
