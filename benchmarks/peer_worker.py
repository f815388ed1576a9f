"""Fit an autoencoder of another library once warm, and print its seconds.

Runs in that library's own environment: python peer_worker.py '["pyod", 1797, ...]'.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch


def fit_pythae(X, hidden, k, batch, epochs):
    """Fit pythae's autoencoder by its training pipeline."""
    from pythae.models import AE, AEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    def mlp(sizes):
        layers = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = mlp([X.shape[1], *hidden, k])

        def forward(self, x):
            return ModelOutput(embedding=self.net(x))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = mlp([k, *hidden[::-1], X.shape[1]])

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    model = AE(
        AEConfig(input_dim=(X.shape[1],), latent_dim=k),
        encoder=Encoder(),
        decoder=Decoder(),
    )
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=batch,
            no_cuda=True,
        )
        TrainingPipeline(training_config=config, model=model)(train_data=X)


def fit_pyod(X, hidden, k, batch, epochs):
    """Fit PyOD's autoencoder detector."""
    from pyod.models.auto_encoder import AutoEncoder

    AutoEncoder(
        hidden_neuron_list=[*hidden, k],
        batch_norm=False,
        dropout_rate=0.0,
        batch_size=batch,
        epoch_num=epochs,
        lr=1e-3,
        device="cpu",
        verbose=0,
    ).fit(X)


def main():
    """Fit twice, the first time for one epoch."""
    name, n, d, hidden, k, batch, epochs = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    fit = {"pythae": fit_pythae, "pyod": fit_pyod}[name]
    with (
        Path(os.devnull).open("w") as quiet,
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        fit(X, hidden, k, batch, 1)
        started = time.perf_counter()
        fit(X, hidden, k, batch, epochs)
        seconds = time.perf_counter() - started
    print(seconds)


if __name__ == "__main__":
    main()
