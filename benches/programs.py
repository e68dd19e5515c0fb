"""Whole programs from PyPI on torch and, unchanged, under `fastrnn.interop.torch.patch()`

    python benches/programs.py [--busy] [NAME ...]

Each run is a process of its own; torch and fastrnn take turns, with 1 and 2 threads, and each one's best time counts.
On a machine that others use, too, --busy compares processor time, with one thread and in one round.
What a program computes is compared, too. Programs whose packages are missing are left out:

    pip install --no-deps skorch stable-baselines3 sb3-contrib gymnasium cloudpickle farama-notifications tabulate tqdm
    pip install --no-deps lightning pytorch-lightning lightning-utilities torchmetrics darts nfoursid narwhals
    pip install --no-deps pytorch-forecasting scikit-base openunmix
"""

import json
import logging
import subprocess
import sys
import time
import warnings
from unittest import mock

import numpy as np

ROUNDS = 3
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}


def numbers(*arrays):
    """What a program computed, as a flat list of at most 200 numbers."""
    flat = np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])
    return flat[:: max(1, len(flat) // 200)].tolist()


def sequence_classifier(kind):
    import torch
    from skorch import NeuralNetClassifier
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.output = nn.Embedding(100, 64), nn.Linear(128, 5)
            self.rnn = getattr(nn, kind)(64, 128, batch_first=True)

        def forward(self, tokens):
            return self.output(self.rnn(self.embedding(tokens))[0][:, -1])

    rng = np.random.default_rng(0)
    x = rng.integers(100, size=(640, 40))
    y = x[:, 3] % 5

    def run():
        torch.manual_seed(0)
        net = NeuralNetClassifier(
            Classifier,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-3,
            max_epochs=3,
            batch_size=32,
            verbose=0,
        )
        net.fit(x, y)
        return numbers(net.history[:, "train_loss"], net.history[:, "valid_loss"], net.predict_proba(x[:20]))

    return run


def skorch_gru():
    return sequence_classifier("GRU")


def skorch_lstm():
    return sequence_classifier("LSTM")


def darts(kind):
    from darts import TimeSeries
    from darts.models import RNNModel

    t = np.arange(400)
    values = np.sin(t / 6) + 0.3 * np.sin(t / 2.1) + 0.05 * np.random.default_rng(0).standard_normal(400)
    series = TimeSeries.from_values(values.astype(np.float32))

    def run():
        model = RNNModel(
            24,
            model=kind,
            hidden_dim=64,
            training_length=36,
            n_epochs=3,
            random_state=0,
            pl_trainer_kwargs={"accelerator": "cpu", **QUIET},
        )
        model.fit(series)
        return numbers(model.predict(60).values())

    return run


def darts_lstm():
    return darts("LSTM")


def darts_gru():
    return darts("GRU")


def recurrent_ppo(steps=512):
    from sb3_contrib import RecurrentPPO

    def run():
        agent = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=128, batch_size=128, seed=0, device="cpu")
        agent.learn(steps)
        return numbers(*(p.detach().numpy() for p in agent.policy.parameters()))

    return run


def recurrent_ppo_masked():
    """Its loop over episode starts replaced by one call."""
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

    import fastrnn.interop.torch as door

    def process_sequence(features, lstm_states, episode_starts, lstm):
        N = lstm_states[0].shape[1]
        x = features.reshape((N, -1, lstm.input_size)).swapaxes(0, 1)
        starts = episode_starts.reshape((N, -1)).swapaxes(0, 1)
        y, states = door.masked(lstm, x, lstm_states, reset_mask=starts > 0.5)
        return y.transpose(0, 1).flatten(end_dim=1), states

    if sys.argv[-1] == "fastrnn":
        RecurrentActorCriticPolicy._process_sequence = staticmethod(process_sequence)
    return recurrent_ppo()


def deepar():
    import lightning
    import pandas
    import torch
    from pytorch_forecasting import DeepAR, TimeSeriesDataSet
    from pytorch_forecasting.data.encoders import GroupNormalizer

    t, rng = np.arange(120), np.random.default_rng(0)
    frames = [
        pandas.DataFrame(
            {"time": t, "value": 5 + np.sin(t / (4 + k)) + 0.1 * rng.standard_normal(120), "group": str(k)}
        )
        for k in range(8)
    ]
    table = pandas.concat(frames, ignore_index=True)

    def run():
        lightning.seed_everything(0, verbose=False)
        data = TimeSeriesDataSet(
            table,
            time_idx="time",
            target="value",
            group_ids=["group"],
            max_encoder_length=30,
            max_prediction_length=10,
            time_varying_unknown_reals=["value"],
            target_normalizer=GroupNormalizer(groups=["group"]),
        )
        model = DeepAR.from_dataset(data, hidden_size=64, rnn_layers=2, learning_rate=1e-2)
        trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", limit_train_batches=12, **QUIET)
        trainer.fit(model, data.to_dataloader(train=True, batch_size=32))
        torch.manual_seed(0)
        return numbers(*(p.detach().numpy() for p in model.parameters()))

    return run


def open_unmix():
    import torch

    sys.modules.setdefault("torchaudio", mock.MagicMock())  # which reads files
    from openunmix.model import OpenUnmix

    torch.manual_seed(0)
    model = OpenUnmix(nb_bins=2049, nb_channels=2, hidden_size=512).eval()
    x = torch.rand(1, 2, 2049, 200)

    def run():  # a song of 20 chunks
        with torch.no_grad():
            return numbers(*(model(x.roll(chunk, 3)).numpy() for chunk in range(20)))

    return run


PROGRAMS = {
    "skorch, GRU classifier": skorch_gru,
    "skorch, LSTM classifier": skorch_lstm,
    "darts RNNModel, LSTM": darts_lstm,
    "darts RNNModel, GRU": darts_gru,
    "sb3-contrib RecurrentPPO": recurrent_ppo,
    "sb3-contrib RecurrentPPO, masked": recurrent_ppo_masked,
    "pytorch-forecasting DeepAR": deepar,
    "open-unmix, separation": open_unmix,
}


def child(name, threads, which):
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(int(threads))
    import fastrnn.interop.torch as door

    if which == "fastrnn":
        door.patch()
    run = PROGRAMS[name]()
    best, processor, found = float("inf"), float("inf"), None
    for _ in range(2):  # the first run imports what is imported late
        start, used = time.perf_counter(), time.process_time()
        found = run()
        best, processor = min(best, time.perf_counter() - start), min(processor, time.process_time() - used)
    report = door.report()
    calls = {"taken": sum(report.taken.values()), "torch": sum(report.fallen_back.values())}
    print(json.dumps({"seconds": best, "processor": processor, "found": found, **calls}))


def measure(name, busy):
    best = {which: float("inf") for which in ("torch", "fastrnn")}
    found, calls = {}, {}
    for _ in range(1 if busy else ROUNDS):
        for threads in (1,) if busy else (1, 2):
            for which in best:
                command = [sys.executable, __file__, "--child", name, str(threads), which]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    return done.stderr.strip().splitlines()[-1]
                result = json.loads(done.stdout.splitlines()[-1])
                best[which] = min(best[which], result["processor" if busy else "seconds"])
                found[which], calls = np.array(result["found"]), result
    difference = np.abs(found["torch"] - found["fastrnn"]).max() / max(1e-9, np.abs(found["torch"]).max())
    ratio = best["torch"] / best["fastrnn"]
    taken = f"{calls['taken']} of {calls['taken'] + calls['torch']}"
    return ratio, f"| {name} | {best['torch']:.2f} | {best['fastrnn']:.2f} | {ratio:.2f} | {difference:.0e} | {taken} |"


def main():
    busy = sys.argv[1:2] == ["--busy"]
    names = sys.argv[2 if busy else 1 :] or list(PROGRAMS)
    print("| program | torch, s | fastrnn, s | times as fast | relative difference | calls on fastrnn |")
    print("|---|---|---|---|---|---|", flush=True)
    ratios = []
    for name in names:
        result = measure(name, busy)
        if isinstance(result, str):
            print(f"| {name} | left out: {result} |", flush=True)
            continue
        ratios.append(result[0])
        print(result[1], flush=True)
    if ratios:
        print(f"\ngeometric mean {np.exp(np.mean(np.log(ratios))):.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
