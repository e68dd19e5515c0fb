"""One time step a call: ONNX Runtime's session and the same session by `fastrnn.interop.onnx.accelerate`

    python benches/onnx_session.py

N = 1, D = H, one thread; medians of interleaved calls in microseconds, session.run's own cost included.
"""

import os
import statistics
import tempfile
import time

import numpy as np
import onnxruntime

import fastrnn
from fastrnn.interop import onnx as door


def compare(path, feeds, rounds=60, calls=40):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]),
        door.accelerate(path, sess_options=options),
    ]
    times = [[], []]
    for _ in range(rounds):
        for session, found in zip(sessions, times):
            for _ in range(calls):
                start = time.perf_counter()
                session.run(None, feeds)
                found.append(time.perf_counter() - start)
    return [statistics.median(found) * 1e6 for found in times]


def main():
    rng = np.random.default_rng(0)
    fastrnn.set_num_threads(1)
    print("| | ONNX Runtime, us | fastrnn, us | times as fast |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        for make in (fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN):
            for H in (64, 128, 256):
                door.save(make(H, H, rng=0), path)
                row = rng.standard_normal((1, 1, H)).astype(np.float32)
                feeds = {"x": row, "lengths": np.ones(1, np.int32), "h_0": row}
                if make is fastrnn.LSTM:
                    feeds["c_0"] = row
                theirs, ours = compare(path, feeds)
                print(f"| {make.__name__}, H={H} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
