"""torch's own samples of its recurrent modules: constructor, weights, outputs and gradients are equal on each."""

import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

import fastrnn.interop.torch as door  # noqa: E402

NAMES = ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db


def samples(name):
    info = next(info for info in module_db if info.module_cls is getattr(torch.nn, name))
    for training in (True, False):
        yield from info.module_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
        )


def leaves(value):
    """Tensors of nested tuples that ask for gradients; a packed sequence's are not leaves."""
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return [value.data]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [value] if isinstance(value, torch.Tensor) else []


def outcome(cls, state, sample):
    module = cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).double()
    if state is not None:
        module.load_state_dict(state)
    torch.manual_seed(1)
    call = sample.forward_input
    outputs = leaves(module(*call.args, **call.kwargs))
    inputs = [t for t in leaves([*call.args, *call.kwargs.values()]) if t.requires_grad]
    wanted = [*module.parameters(), *inputs]
    gradients = torch.autograd.grad(sum(y.square().sum() for y in outputs), wanted, allow_unused=True)
    return module.state_dict(), [*outputs, *gradients]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("fresh_door")
@pytest.mark.parametrize("name", NAMES)
def test_torchs_samples(name):
    count = 0
    for sample in samples(name):
        count += 1
        torch.manual_seed(0)
        state, expected = outcome(getattr(torch.nn, name), None, sample)
        _, got = outcome(getattr(door, name), state, sample)
        for a, b in zip(expected, got, strict=True):
            assert (a is None and b is None) or torch.testing.assert_close(a, b) is None
    assert count and door.report().taken == {name: count} and not door.report().fallen_back
