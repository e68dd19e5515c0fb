"""Who is timed: fastrnn and its peers, each on the same weights and inputs.

`base` says what a contender is; a peer's own package is imported only when the peer is made, so that those which are
not installed can be left out.
"""

from __future__ import annotations

from fastrnn.bench.peers.base import WEIGHTS, Peer, Problem, make_problem
from fastrnn.bench.peers.jax_scan import Jax
from fastrnn.bench.peers.onnx_models import OnnxRuntime, OnnxRuntimeSteps, OpenVINO
from fastrnn.bench.peers.own import FastRNN, NumPyReference
from fastrnn.bench.peers.pytorch import Torch, TorchCell

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (NumPyReference, Torch, TorchCell, OnnxRuntime, OnnxRuntimeSteps, OpenVINO, Jax)
}

__all__ = ["PEERS", "WEIGHTS", "FastRNN", "Peer", "Problem", "make_problem"]
