"""What a batch of unequal lengths takes of the time of a padded one, against the share of its steps that are valid.

    python benches/ragged.py [--cells LSTM GRU] [--threads 1 2] [--rounds 15]

Lengths are drawn evenly from 1 to T, from the first seed whose share of valid steps is within 0.005 of the one named.
ragged: `layer(x, lengths=...)`; padded: `layer(x)`, both in turns; fwd, and fwd+bwd with `training=True` and
`layer.backward`. Asked for: ragged / padded at most the share + 0.08.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import numpy as np

import fastrnn
from fastrnn.bench.measure import Plan, measure

SHAPES = {(60, 32, 100, 128): 0.60, (100, 32, 64, 128): 0.47, (100, 64, 128, 256): 0.54}
ALLOWED = 0.08


def lengths_of_share(T: int, N: int, share: float) -> np.ndarray:
    for seed in range(10_000):
        lengths = np.random.default_rng(seed).integers(1, T + 1, N)
        if abs(lengths.mean() / T - share) < 0.005:
            return lengths
    raise ValueError(f"share: no lengths up to {T} of {N} rows have {share}")


def calls(cell: str, shape: tuple[int, int, int, int], share: float) -> dict[str, Callable[[], object]]:
    T, N, D, H = shape
    layer = getattr(fastrnn, cell)(D, H, rng=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, N, D), dtype=np.float32)
    dy = rng.standard_normal((T, N, H), dtype=np.float32)
    lengths = lengths_of_share(T, N, share)

    def both(lengths: np.ndarray | None) -> None:
        layer(x, lengths=lengths, training=True)
        layer.backward(dy)

    return {
        "fwd padded": lambda: layer(x),
        "fwd ragged": lambda: layer(x, lengths=lengths),
        "fwd+bwd padded": lambda: both(None),
        "fwd+bwd ragged": lambda: both(lengths),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["LSTM", "GRU"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    plan = Plan(rounds=args.rounds, budget=60, block=0.02, pause=0.002)
    print(
        f"{'cell':5}{'T,N,D,H':18}{'threads':>8}{'share':>7}{'asked':>7} |  fwd ms, ratio (least) | fwd+bwd, the same"
    )
    for cell in args.cells:
        for shape, share in SHAPES.items():
            for threads in args.threads:
                fastrnn.set_num_threads(threads)
                seconds = measure(calls(cell, shape, share), plan)
                line = f"{cell:5}{','.join(map(str, shape)):18}{threads:>8}{share:>7.2f}{share + ALLOWED:>7.2f}"
                for mode in ("fwd", "fwd+bwd"):
                    padded, ragged = seconds[f"{mode} padded"], seconds[f"{mode} ragged"]
                    ratios = [a / b for a, b in zip(ragged, padded)]
                    line += f" |{median(padded) * 1e3:>8.3f}{median(ratios):>7.3f} ({min(ragged) / min(padded):.3f})"
                print(line, flush=True)


if __name__ == "__main__":
    main()
