"""A training step of an embedding with sparse gradients: how it grows with V, and against PyTorch.

    python benches/sparse_embedding.py

Forward, backward and a lazy step of Adam (SparseAdam in PyTorch) on N = 4,096 tokens of D = 128, in turns of 30 steps
in one process, new tokens each time; medians, without the first steps of each turn (the other's threads still spin).
"""

from __future__ import annotations

import time

import numpy as np

import fastrnn

D, N, TURNS, STEPS, WARM, SIZES = 128, 4096, 6, 30, 10, (10_000, 100_000, 1_000_000)


def ours(V, dy):
    layer, optimizer = fastrnn.Embedding(V, D, sparse=True, rng=0), fastrnn.Adam()

    def step(x):
        layer.zero_grad()
        layer(x, training=True)
        layer.backward(dy)
        optimizer.step(layer.params, layer.grads)

    return step


def torchs(V, dy):
    import torch

    torch.set_num_threads(fastrnn.get_num_threads())
    layer = torch.nn.Embedding(V, D, sparse=True)
    optimizer, dy = torch.optim.SparseAdam(layer.parameters()), torch.from_numpy(dy)

    def step(x):
        optimizer.zero_grad()
        layer(torch.from_numpy(x)).backward(dy)
        optimizer.step()

    return step


def main() -> None:
    rng = np.random.default_rng(0)
    dy = rng.standard_normal((N, D), np.float32)
    steps = {(name, V): make(V, dy) for V in SIZES for name, make in (("fastrnn", ours), ("torch", torchs))}
    times: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
    for _ in range(TURNS):
        for (name, V), step in steps.items():
            for k in range(STEPS):
                x = rng.integers(0, V, N)
                begin = time.perf_counter()
                step(x)
                if k >= WARM:
                    times[name, V].append(time.perf_counter() - begin)
    median = {key: 1e3 * float(np.median(seconds)) for key, seconds in times.items()}
    print(f"D={D}, {N} tokens, {fastrnn.get_num_threads()} threads; milliseconds a step")
    for V in SIZES:
        a, b = median["fastrnn", V], median["torch", V]
        grown = a / median["fastrnn", SIZES[0]]
        print(f"V={V:>9,}  fastrnn {a:6.2f} ({grown:.2f} times V={SIZES[0]:,})  torch {b:6.2f}  {b / a:5.1f} times")


if __name__ == "__main__":
    main()
