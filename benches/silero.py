"""The voice detector silero-vad on fastrnn: python benches/silero.py

Needs `pip install silero-vad --no-deps` and onnxruntime.

Its recurrent layer in one block and as a stream, and its whole ONNX models by `accelerate`, beside ONNX Runtime:
largest difference, and microseconds, interleaved, medians, one thread.
"""

import statistics
import time
from importlib.metadata import files

import numpy as np
import onnx
import onnxruntime
from onnx import helper

import fastrnn
from fastrnn.interop import onnx as door

FRAME, CONTEXT = 512, 64


def model_file(name):
    return str(next(f for f in files("silero-vad") if f.name == name).locate())


def audio(frames):
    """A voice of some harmonics that comes and goes over noise, (frames, CONTEXT + FRAME): frames overlap."""
    rng = np.random.default_rng(0)
    t = np.arange(frames * FRAME) / 16000
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / 16000
    voice = sum(np.sin(k * pitch) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 0.4 * t) > 0)
    wave = (0.1 * voice + 0.01 * rng.standard_normal(len(t))).astype(np.float32)
    wave = np.concatenate([np.zeros(CONTEXT, np.float32), wave])
    return np.stack([wave[i * FRAME : i * FRAME + CONTEXT + FRAME] for i in range(frames)])


def interleaved(first, second, rounds=15):
    """Microseconds of both, medians."""
    times = [], []
    first(), second()
    for _ in range(rounds):
        for run, own in zip((first, second), times):
            start = time.perf_counter()
            run()
            own.append((time.perf_counter() - start) * 1e6)
    return [statistics.median(own) for own in times]


def plain_session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def our_session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return door.accelerate(model, options)


def recurrent_layer(frames):
    """The LSTM of the model that takes a whole sequence, fed with what stands before it in that model."""
    path = model_file("silero_vad_16k_sequence.onnx")
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.op_type == "LSTM")
    for name in (node.input[0], *node.output[:1]):
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    state = np.zeros((1, 1, 128), np.float32)
    feeds = {"input": frames, "h": state, "c": state}
    x, expected = plain_session(model.SerializeToString()).run([node.input[0], node.output[0]], feeds)
    (layer,) = door.load_layers(path).values()
    block = layer(x)[0]
    stream = layer.stream()
    steps = np.stack([stream.step(row) for row in x])
    exact = fastrnn.LSTM(layer.input_size, layer.hidden_size, dtype=np.float64)
    exact.load_state_dict(layer.state_dict())
    truth = exact(x.astype(np.float64))[0]
    expected = expected.reshape(block.shape)
    for name, found in (("in one block", block), ("as a stream", steps.reshape(block.shape))):
        print(f"its LSTM {name}: largest difference from ONNX Runtime {np.abs(found - expected).max():.1e}, ", end="")
        print(f"from float64 {np.abs(found - truth).max():.1e} (ONNX Runtime's {np.abs(expected - truth).max():.1e})")
        assert np.abs(found - truth).max() < 2e-6
    alone = helper.make_model(
        helper.make_graph(
            [onnx.NodeProto.FromString(node.SerializeToString())],
            "lstm",
            [helper.make_tensor_value_info(n, 1, None) for n in (node.input[0], "h", "c")],
            [helper.make_tensor_value_info(n, 1, None) for n in node.output],
            [t for t in model.graph.initializer if t.name in node.input],
        ),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    theirs = plain_session(alone.SerializeToString())
    report(
        "its LSTM, all frames",
        *interleaved(lambda: theirs.run(None, {node.input[0]: x, "h": state, "c": state}), lambda: layer(x)),
    )
    one = np.ascontiguousarray(x[:1])
    report(
        "its LSTM, one frame",
        *interleaved(
            lambda: theirs.run(None, {node.input[0]: one, "h": state, "c": state}), lambda: stream.step(one[0]), 300
        ),
    )


def report(name, theirs, ours):
    print(f"{name}: ONNX Runtime {theirs:.1f} us, fastrnn {ours:.1f} us, {theirs / ours:.2f} times as fast")


class Detector:
    """The whole model, frame by frame with its state: probabilities of voice."""

    def __init__(self, session, frames):
        self.session, self.frames, self.at, self.found = session, frames, 0, []
        self.rate = {"sr": np.array(16000, np.int64)} if any(i.name == "sr" for i in session.get_inputs()) else {}
        self.state = np.zeros((2, 1, 128), np.float32)

    def step(self):
        feeds = {"input": self.frames[self.at % len(self.frames)][None], "state": self.state, **self.rate}
        y, self.state = self.session.run(None, feeds)
        self.found.append(y)
        self.at += 1


def whole_models(frames):
    for name in ("silero_vad.onnx", "silero_vad_16k_op15.onnx"):
        path = model_file(name)
        ours = our_session(path)
        theirs, mine = Detector(plain_session(path), frames), Detector(ours, frames)
        took = interleaved(theirs.step, mine.step, 1000)
        difference = np.abs(np.concatenate(theirs.found) - np.concatenate(mine.found)).max()
        print(f"{name}: {len(ours.fastrnn_nodes[0])} nodes on fastrnn, largest difference {difference:.1e}")
        assert difference < 2e-6
        report(f"{name}, a frame", *took)
    path = model_file("silero_vad_16k_sequence.onnx")
    state = np.zeros((1, 1, 128), np.float32)
    feeds = {"input": frames, "h": state, "c": state}
    theirs, mine = plain_session(path), our_session(path)
    difference = np.abs(theirs.run(None, feeds)[0] - mine.run(None, feeds)[0]).max()
    print(f"silero_vad_16k_sequence.onnx: largest difference {difference:.1e}")
    report("silero_vad_16k_sequence.onnx", *interleaved(lambda: theirs.run(None, feeds), lambda: mine.run(None, feeds)))


def main():
    fastrnn.set_num_threads(1)
    frames = audio(200)
    recurrent_layer(frames)
    whole_models(frames)


if __name__ == "__main__":
    main()
