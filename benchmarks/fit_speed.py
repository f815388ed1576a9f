"""Time `fit` against the loop its users would write, side by side in one run.

Same network, optimiser, batches, epochs and rows for every contender; one thread;
rounds interleaved; medians of the ratio to the raw loop of the same round.

    python benchmarks/fit_speed.py [--rounds 5] [--workloads tiny table image]
"""

from __future__ import annotations

import argparse
import time
import warnings
from itertools import pairwise

import numpy as np
import torch
from _machine import table, write
from sklearn.neural_network import MLPRegressor
from skorch import NeuralNet
from torch import nn

from skvae import VAE, AutoencoderTransformer

# rows, columns, hidden layers, components, batch size, epochs
WORKLOADS = {
    "tiny": (1797, 64, (64,), 8, 64, 40),
    "table": (50_000, 32, (128, 64), 10, 256, 5),
    "image": (20_000, 784, (512, 256), 20, 128, 2),
}


def _mlp(sizes):
    layers = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _autoencoder(d, hidden, k, heads=1):
    encoder = _mlp([d, *hidden, k * heads])
    return encoder, _mlp([k, *hidden[::-1], d])


def raw_loop(X, hidden, k, batch, epochs, *, fused=False, loader=False):
    """Train as an idiomatic PyTorch script does."""
    encoder, decoder = _autoencoder(X.shape[1], hidden, k)
    net = nn.Sequential(encoder, decoder)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3, fused=fused)
    X = torch.from_numpy(X)
    rows = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X), batch_size=batch, shuffle=True
    )
    for _ in range(epochs):
        order = torch.randperm(len(X))
        batches = rows if loader else ((X[i],) for i in order.split(batch))
        for (x,) in batches:
            optimiser.zero_grad()
            loss = nn.functional.mse_loss(net(x), x)
            loss.backward()
            optimiser.step()


def raw_vae_loop(X, hidden, k, batch, epochs):
    """Train a VAE with learned column variances as a script does."""
    encoder, decoder = _autoencoder(X.shape[1], hidden, k, heads=2)
    log_sd = nn.Parameter(torch.zeros(X.shape[1]))
    parameters = [*encoder.parameters(), *decoder.parameters(), log_sd]
    optimiser = torch.optim.Adam(parameters, 1e-3)
    X = torch.from_numpy(X)
    for _ in range(epochs):
        for i in torch.randperm(len(X)).split(batch):
            x = X[i]
            optimiser.zero_grad()
            mean, log_var = encoder(x).chunk(2, dim=1)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            normal = torch.distributions.Normal(
                decoder(z), torch.exp(log_sd), validate_args=False
            )
            kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
            loss = (kl - normal.log_prob(x).sum(1)).mean()
            loss.backward()
            optimiser.step()


def skorch_defaults(X, hidden, k, batch, epochs):
    """Train by skorch as it comes, without its own validation split."""
    net = NeuralNet(
        nn.Sequential(*_autoencoder(X.shape[1], hidden, k)),
        nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=batch,
        max_epochs=epochs,
        train_split=None,
        verbose=0,
        iterator_train__shuffle=True,
    )
    net.fit(X, X)


def mlp_regressor(X, hidden, k, batch, epochs):
    """Train scikit-learn's perceptron to return its input."""
    sizes = (*hidden, k, *hidden[::-1])
    net = MLPRegressor(
        hidden_layer_sizes=sizes, batch_size=batch, max_iter=epochs, tol=0, alpha=0
    )
    net.fit(X, X)


def ours(kind, X, hidden, k, batch, epochs):
    """Train our estimator: same sizes, nothing held out."""
    settings = {"input_noise": 0.0} if kind is AutoencoderTransformer else {}
    kind(
        k,
        hidden_layer_sizes=hidden,
        activation="relu",
        batch_size=batch,
        max_iter=epochs,
        learning_rate_init=1e-3,
        early_stopping=False,
        init="random",
        scale=None,
        random_state=0,
        **settings,
    ).fit(X)


CONTENDERS = {
    "raw loop": raw_loop,
    "raw loop, fused Adam": lambda *a: raw_loop(*a, fused=True),
    "raw loop, DataLoader": lambda *a: raw_loop(*a, loader=True),
    "skorch defaults": skorch_defaults,
    "MLPRegressor(X, X)": mlp_regressor,
    "AutoencoderTransformer": lambda *a: ours(AutoencoderTransformer, *a),
    "raw VAE loop": raw_vae_loop,
    "VAE": lambda *a: ours(VAE, *a),
}


def run(workload, rounds):
    """Return the seconds of every contender, one list entry a round."""
    n, d, hidden, k, batch, epochs = WORKLOADS[workload]
    X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    seconds = {name: [] for name in CONTENDERS}
    for i in range(rounds + 1):
        for name, contender in CONTENDERS.items():
            started = time.perf_counter()
            contender(X, hidden, k, batch, 1 if i == 0 else epochs)
            if i:  # The first round warms up.
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main():
    """Run the workloads and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS))
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for workload in args.workloads:
        seconds = run(workload, args.rounds)
        for name, times in seconds.items():
            base = "raw VAE loop" if name == "VAE" else "raw loop"
            ratio = np.median(np.divide(times, seconds[base]))
            fused = np.median(np.divide(times, seconds["raw loop, fused Adam"]))
            mlp = np.median(np.divide(times, seconds["MLPRegressor(X, X)"]))
            rows.append(
                {
                    "workload": workload,
                    "contender": name,
                    "seconds": round(float(np.median(times)), 3),
                    "to raw loop": round(float(ratio), 2),
                    "to fused loop": round(float(fused), 2),
                    "to MLPRegressor": round(float(mlp), 2),
                }
            )
            print(*rows[-1].values(), flush=True)
    text = (
        "One thread; medians over rounds of the ratio within a round. VAE is compared "
        "with the raw VAE loop.\n\n"
    )
    write(
        args.out, "fit_speed", rows, text + table(rows[0], [r.values() for r in rows])
    )


if __name__ == "__main__":
    main()
