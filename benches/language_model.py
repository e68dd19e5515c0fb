"""A character model on the help topics of Python, here and in PyTorch: bits per character, and tokens per second.

    python benches/language_model.py [--epochs 2] [--hidden-size 256] [--layers 2] [--characters 100000]

The last 10% of the text are held out. Both train the same network on the same batches in the same order: embedding,
stacked LSTM, Linear, Adam, clipped gradients, the state carried on; from the same weights, so that what differs is
rounding. They take turns, one epoch each. Beside the clock's time stands the processor's, which other work on the
machine changes less.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch

import fastrnn
from fastrnn.models import help_topics


class Peer(torch.nn.Module):
    def __init__(self, V, D, H, layers):
        super().__init__()
        self.embedding, self.lstm = torch.nn.Embedding(V, D), torch.nn.LSTM(D, H, layers, batch_first=True)
        self.linear = torch.nn.Linear(H, V)

    def forward(self, x, state):
        y, state = self.lstm(self.embedding(x), state)
        return self.linear(y), state

    def copy_from(self, model):
        for part, k in ((self.embedding, 0), (self.lstm, 1), (self.linear, 2)):
            part.load_state_dict({name: torch.from_numpy(a) for name, a in model[k].state_dict().items()})


def train_epoch(peer, optimizer, x, y, N, clip_norm):
    total, state = 0.0, None
    for start in range(0, len(x), N):
        state = None if state is None else tuple(part.detach() for part in state)
        logits, state = peer(x[start : start + N], state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y[start : start + N].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), clip_norm)
        optimizer.step()
        total += loss.item()
    return total / (len(x) // N)


@torch.no_grad()
def score(peer, tokens):
    total, state = 0.0, None
    for start in range(0, len(tokens) - 1, 256):
        piece = torch.from_numpy(tokens[start : start + 257])
        logits, state = peer(piece[None, :-1], state)
        total += torch.nn.functional.cross_entropy(logits[0], piece[1:], reduction="sum").item()
    return total / (len(tokens) - 1) / math.log(2)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("epochs", 2), ("hidden-size", 256), ("layers", 2), ("batch-size", 32), ("steps", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, help="of both (default: all)")
    parser.add_argument("--characters", type=int, help="of the text, from its beginning (default: all)")
    args = parser.parse_args()
    if args.threads:
        fastrnn.set_num_threads(args.threads)
    torch.set_num_threads(fastrnn.get_num_threads())
    text, N, T, lr, clip_norm = help_topics()[: args.characters], args.batch_size, args.steps, 2e-3, 1.0
    cut = int(0.9 * len(text))
    H = args.hidden_size
    model = fastrnn.LanguageModel.of(text, hidden_size=H, num_layers=args.layers, rng=0)
    x, y = model.samples(text[:cut], N, T)
    held = model.vocabulary.encode(text[cut:])
    trainer = fastrnn.Trainer(model, optimizer=fastrnn.Adam(lr), clip_norm=clip_norm, stateful=True, metrics=(), rng=0)
    peer = Peer(len(model.vocabulary), H, H, args.layers)
    peer.copy_from(model)
    optimizer = torch.optim.Adam(peer.parameters(), lr)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    print(f"{cut:,} characters to train on, {len(held):,} held out; V={len(model.vocabulary)}, H={H}, N={N}, T={T}")
    seconds = {"fastrnn": [], "torch": []}
    for epoch in range(args.epochs):
        begin, busy = time.perf_counter(), time.process_time()
        trainer.reset_states()
        ours = trainer.fit(x, y, epochs=1, batch_size=N, progress=False)["loss"][-1]
        seconds["fastrnn"].append((time.perf_counter() - begin, time.process_time() - busy))
        begin, busy = time.perf_counter(), time.process_time()
        theirs = train_epoch(peer, optimizer, tx, ty, N, clip_norm)
        seconds["torch"].append((time.perf_counter() - begin, time.process_time() - busy))
        for name, loss, bits in (
            ("fastrnn", ours, model.score(held)["bits_per_character"]),
            ("torch", theirs, score(peer, held)),
        ):
            clock, processor = (x.size / spent for spent in seconds[name][-1])
            print(
                f"epoch {epoch + 1}  {name:7}  loss {loss:.4f}  held out {bits:.4f} bits per character  "
                f"{clock:8,.0f} tokens/s  {processor:8,.0f} per processor second",
                flush=True,
            )
    ratios = np.median(np.array(seconds["torch"]) / np.array(seconds["fastrnn"]), axis=0)
    print(f"fastrnn over torch: {ratios[0]:.2f} times the tokens per second, {ratios[1]:.2f} per processor second")


if __name__ == "__main__":
    main()
