"""What real programs do around a call: training, functional calls, wrapped, pruned, hooked and odd modules."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402
from torch.nn.utils.rnn import pack_sequence  # noqa: E402
from torch_cases import assert_same_training, flat, taken, twins  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402

pytestmark = [pytest.mark.usefixtures("fresh_door"), pytest.mark.filterwarnings("ignore")]


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(20, 16), nn.LSTM(16, 24, 2, bidirectional=True, dropout=0.2)
        self.output = nn.Linear(48, 5)

    def forward(self, tokens):
        return self.output(self.rnn(self.embedding(tokens))[0]).flatten(0, 1)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn, self.output = nn.Embedding(20, 16), nn.GRU(16, 24, batch_first=True), nn.Linear(24, 5)

    def forward(self, tokens):
        packed = pack_sequence(list(self.embedding(tokens)), enforce_sorted=False)
        return self.output(self.rnn(packed)[1][0])


@pytest.mark.parametrize("kind", [Tagger, Classifier])
def test_the_same_loss_curve(kind):
    curves = []
    for accelerated in (False, True):
        torch.manual_seed(5)
        model = kind()
        if accelerated:
            assert door.accelerate(model).swapped == ["rnn"]
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        tokens = torch.randint(20, (12, 8))
        targets = (tokens % 5).flatten() if kind is Tagger else tokens[:, 3] % 5
        losses = []
        for _ in range(50):
            loss = nn.functional.cross_entropy(model(tokens), targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        curves.append(torch.tensor(losses))
    assert curves[0][-1] < curves[0][0] and (curves[0] - curves[1]).abs().max() < 1e-4


def test_functional_call_profiler_and_checkpointing():
    theirs, ours = twins()
    x = torch.randn(3, 5, 6)
    weights = {name: p * 2 for name, p in theirs.named_parameters()}
    call = torch.func.functional_call
    torch.testing.assert_close(call(ours, weights, (x,)), call(theirs, weights, (x,)))
    with torch.profiler.profile():
        torch.testing.assert_close(ours(x), theirs(x))
    run = torch.utils.checkpoint.checkpoint
    assert_same_training(theirs, ours, x, lambda leaf: run(ours, leaf, use_reentrant=False))
    np.testing.assert_allclose(ours(x).detach().numpy(), theirs(x).detach().numpy(), atol=1e-6)


# --- Odd programs -----------------------------------------------------------------------------------------------------


class Padding(nn.LSTM):
    """Hands on only the sequences that are not empty, as programs with lengths of 0 do; one more argument."""

    def forward(self, x, lengths, scale=1.0):
        runs = lengths > 0
        packed = nn.utils.rnn.pack_padded_sequence(x[runs], lengths[runs], batch_first=True, enforce_sorted=False)
        y, _ = nn.utils.rnn.pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=x.shape[1])
        whole = x.new_zeros(len(x), x.shape[1], y.shape[2])
        whole[runs] = y * scale
        return whole


class Decoder(nn.Module):
    """A cell in a loop, a learned initial state, an output that feeds back."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(4, 6), nn.Linear(6, 4)
        self.start = nn.Parameter(torch.randn(1, 6))

    def forward(self, x):
        h, outputs = self.start.expand(len(x), -1), []
        for _ in range(3):
            h = self.cell(x, h)
            x = self.out(h)
            outputs.append(x)
        return torch.stack(outputs)


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 6, batch_first=True)
        self.h, self.c = (nn.Parameter(torch.randn(1, 1, 6)) for _ in range(2))

    def forward(self, x):
        start = [p.repeat(1, len(x), 1) for p in (self.h, self.c)] if len(x) > 1 else [self.h, self.c]
        return self.rnn(x, start)[0]


class DroppedWeights(nn.Module):
    """As AWD-LSTM: its recurrent weights are replaced by a tensor that is computed anew for each call."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 6)
        self.raw = self.rnn._parameters.pop("weight_hh_l0")

    def forward(self, x):
        self.rnn.weight_hh_l0 = nn.functional.dropout(self.raw, 0.5, self.training) * 1
        return self.rnn(x)[0]


def odd_programs():
    x = torch.randn(3, 5, 4)
    yield Padding(4, 6, batch_first=True), (x, torch.tensor([5, 0, 2]), 2.0)
    yield Decoder(), (x[:, 0],)
    yield Learned(), (x,)
    yield Learned(), (x[:1],)
    yield DroppedWeights(), (x,)
    yield nn.DataParallel(nn.GRU(4, 6)), (x,)
    pruned = nn.Sequential(nn.GRU(4, 6))
    prune.random_unstructured(pruned[0], "weight_hh_l0", 0.5)
    yield pruned, (x,)
    yield nn.utils.weight_norm(nn.LSTM(4, 6), "weight_hh_l0"), (x,)
    turned = nn.GRU(6, 6)
    turned.weight_hh_l0.data = torch.randn(6, 18).t()
    yield turned, (torch.randn(3, 5, 6),)
    hooked = nn.RNN(4, 6)
    hooked.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    hooked.register_forward_hook(lambda module, args, result: (result[0] + 1, result[1]))
    yield hooked, (x,)


@pytest.mark.parametrize("index", range(10))
def test_odd_programs_under_patch(index):
    torch.manual_seed(index)
    model, args = list(odd_programs())[index]
    results = []
    for patched in (False, True):
        (door.patch if patched else door.unpatch)()
        for _ in range(2):
            model.zero_grad()
            torch.manual_seed(0)
            y = flat(model(*args))[0]
            y.square().sum().backward()
        with torch.no_grad():
            model.eval()
            once, again = flat(model(*args))[0], flat(model(*args))[0]
            model.train()
        torch.testing.assert_close(once, again)
        results.append([y.detach(), once, *[p.grad for p in model.parameters()]])
    assert taken() > 0
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
