"""Fits: contenders of the same size, and how the time grows."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPRegressor
from skorch import NeuralNet
from torch import nn

from skvae import VAE, AutoencoderTransformer, ContractiveAutoencoder

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


def raw_loop(X, hidden, k, batch, epochs, *, fused=False, loader=False, device="cpu"):
    """Train as an idiomatic PyTorch script does, its rows on the device."""
    encoder, decoder = _autoencoder(X.shape[1], hidden, k)
    net = nn.Sequential(encoder, decoder).to(device)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3, fused=fused)
    X = torch.from_numpy(X).to(device)
    rows = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X), batch_size=batch, shuffle=True
    )
    for _ in range(epochs):
        order = torch.randperm(len(X), device=device)
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


def ours(kind, X, hidden, k, batch, epochs, device="auto"):
    """Train our estimator: same sizes, nothing held out."""
    # The raw VAE loop learns one variance a column too.
    settings = {"noise": "feature"} if kind is VAE else {"input_noise": 0.0}
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
        device=device,
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


Row = tuple[str, str, list[float], list[float]]


def rounds_of(contenders: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Return wall seconds of contenders taking turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, contender in contenders.items():
            started = time.perf_counter()
            contender()
            if i:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def fit(options: Any) -> Iterator[Row]:
    """Compare fits with raw loops, scikit-learn and skorch."""
    for workload, (n, d, *sizes) in WORKLOADS.items():
        X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
        bound = {
            name: lambda c=contender, X=X, s=sizes: c(X, *s)
            for name, contender in CONTENDERS.items()
        }
        found = rounds_of(bound, options.rounds)
        ours = found["AutoencoderTransformer"]
        for name, theirs in found.items():
            if name not in ("AutoencoderTransformer", "VAE", "raw VAE loop"):
                yield workload, name, ours, theirs
        yield f"{workload}, VAE", "raw VAE loop", found["VAE"], found["raw VAE loop"]


# columns, hidden layers, components
_CONTRACTED = (
    (64, (128,), 10),
    (64, (128,), 50),
    (784, (128,), 10),
    (784, (128,), 50),
    (784, (512,), 20),
    (64, (512, 256), 10),
    (784, (512, 256), 10),
)


def contraction(options: Any) -> Iterator[Row]:
    """Compare fits with the penalty with those without."""
    for d, hidden, k in _CONTRACTED:
        n = 6400 if math.prod(hidden) < 200 else 2560
        X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
        for activation in ("relu", "logistic"):

            def run(alpha, X=X, hidden=hidden, k=k, activation=activation):
                ContractiveAutoencoder(
                    k,
                    alpha=alpha,
                    hidden_layer_sizes=hidden,
                    activation=activation,
                    batch_size=128,
                    max_iter=5,
                    early_stopping=False,
                    random_state=0,
                ).fit(X)

            both = {"penalty": lambda r=run: r(0.1), "plain": lambda r=run: r(0.0)}
            found = rounds_of(both, options.rounds)
            name = f"{d}, {hidden}, {k}, {activation}"
            yield name, "no penalty", found["penalty"], found["plain"]


def growth(options: Any) -> Iterator[Row]:
    """Compare the fit time a row of large data with that of 10 000 rows."""
    X = np.random.default_rng(0).normal(size=(1_000_000, 32)).astype(np.float32)

    def a_row(n: int) -> float:
        epochs = 4
        started = time.perf_counter()
        AutoencoderTransformer(
            10,
            batch_size=256,
            max_iter=epochs,
            early_stopping=False,
            input_noise=0.0,
            random_state=0,
        ).fit(X[:n])
        return (time.perf_counter() - started) / n / epochs * 1e6

    found: dict[int, list[float]] = {10_000: [], 100_000: [], 1_000_000: []}
    for i in range(min(options.rounds, 3) + 1):
        for n, times in found.items():
            if i or n < 1_000_000:
                took = a_row(n)
                if i:
                    times.append(took)
    for n in (100_000, 1_000_000):
        yield f"{n} rows, us a row and epoch", "10 000 rows", found[n], found[10_000]


def time_to_quality(options: Any) -> Iterator[Row]:
    """Compare how long it takes to reach what the plain loop reaches."""
    digits = load_digits().data / 16
    rng = np.random.default_rng(0)
    curved = np.tanh(rng.normal(size=(20_000, 4)) @ rng.normal(size=(4, 32)))
    curved += 0.1 * rng.normal(size=curved.shape)
    sets = {"digits, k=8": (digits, 8), "generated 20 000 x 32, k=6": (curved, 6)}
    for name, (rows, k) in sets.items():
        X = rows.astype(np.float32)
        order = np.random.default_rng(1).permutation(len(X))
        cut = len(X) // 5
        test, train = X[order[:cut]], X[order[cut:]]
        ours, theirs = [], []
        for seed in range(min(options.rounds, 3)):
            goal, seconds = _raw_quality(train, test, k, seed)
            theirs.append(seconds)
            ours.append(_seconds_until(goal, train, test, k, seed))
        yield name, "raw loop, 3000 steps", ours, theirs


def _raw_quality(train, test, k, seed, steps=3000):
    """Train the raw loop on standardised rows; return its R2 and CPU seconds."""
    torch.manual_seed(seed)
    started = time.process_time()
    mean, sd = train.mean(0), train.std(0) + 1e-6
    X = torch.from_numpy((train - mean) / sd)
    encoder, decoder = _autoencoder(X.shape[1], (128, 64), k)
    net = nn.Sequential(encoder, decoder)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    done = 0
    while done < steps:
        for i in torch.randperm(len(X)).split(128):
            optimiser.zero_grad()
            nn.functional.mse_loss(net(X[i]), X[i]).backward()
            optimiser.step()
            done += 1
    seconds = time.process_time() - started
    with torch.no_grad():
        back = net(torch.from_numpy((test - mean) / sd)).numpy() * sd + mean
    return _r2(test, back, train.mean(0)), seconds


def _r2(x, back, mean):
    return 1 - float(((x - back) ** 2).sum() / ((x - mean) ** 2).sum())


def _seconds_until(goal, train, test, k, seed):
    """Return CPU seconds of the shortest default fit that reaches the goal."""
    for epochs in (0, 1, 2, 5, 10, 20, 40, 80, 160, "auto"):
        model = AutoencoderTransformer(k, max_iter=epochs, random_state=seed)
        started = time.process_time()
        model.fit(train)
        seconds = time.process_time() - started
        if _r2(test, model.reconstruct(test), train.mean(0)) >= goal:
            return seconds
    return math.inf


def peers(options: Any) -> Iterator[Row]:
    """Compare with other libraries, each in an interpreter of its own."""
    worker = Path(__file__).with_name("peer_worker.py")
    for peer in options.peers:
        name, _, python = peer.partition("=")
        for workload in ("tiny", "table"):
            n, d, hidden, k, batch, epochs = WORKLOADS[workload]
            X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
            settings = json.dumps([name, n, d, hidden, k, batch, epochs])
            mine, theirs = [], []
            for _ in range(options.rounds):
                done = subprocess.run(
                    [python, str(worker), settings],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                theirs.append(float(done.stdout.split()[-1]))
                started = time.perf_counter()
                ours(AutoencoderTransformer, X, hidden, k, batch, epochs)
                mine.append(time.perf_counter() - started)
            yield workload, name, mine, theirs
