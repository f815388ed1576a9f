"""What the literature reports on MNIST, a few epochs each on one thread.

Needs the four files of MNIST in IDX format, gzipped or not, in one folder:

    python benchmarks/mnist.py --data DIR [--only jacobian sparse denoising ...]
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _machine import table, write
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import (
    VAE,
    AutoencoderTransformer,
    ConditionalVAE,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
)


def read(folder, name):
    """Return the bytes of an IDX file after its header."""
    plain = Path(folder) / name
    if plain.exists():
        data = plain.read_bytes()
    else:
        data = gzip.decompress(Path(folder, name + ".gz").read_bytes())
    # The fourth byte of the magic number counts the axes; each has four bytes.
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])


def load(folder):
    """Return training and test images in [0, 1] and their labels."""
    parts = []
    for part in ("train", "t10k"):
        pixels = read(folder, f"mnist-{part}-images-idx3-ubyte")
        parts.append(pixels.reshape(-1, 784).astype(np.float32) / 255)
        parts.append(read(folder, f"mnist-{part}-labels-idx1-ubyte").astype(int))
    return parts


def jacobian(X, y, X_test, y_test):
    """Compare how strongly the codes of three autoencoders react to a pixel."""
    shared = {"hidden_layer_sizes": (256,), "max_iter": 5, "random_state": 0}
    gaussian = {"corruption": "gaussian", "corruption_level": 0.3}
    models = {
        "AE": AutoencoderTransformer(30, **shared),
        "DAE (gaussian 0.3)": DenoisingAutoencoder(30, **gaussian, **shared),
        "CAE (alpha 0.1)": ContractiveAutoencoder(30, alpha=0.1, **shared),
        "CAE (alpha 1)": ContractiveAutoencoder(30, alpha=1.0, **shared),
        "CAE (alpha 10)": ContractiveAutoencoder(30, alpha=10.0, **shared),
        "CAE (alpha 1, tied)": ContractiveAutoencoder(
            30, alpha=1.0, tied_weights=True, **shared
        ),
    }
    plain = None
    for name, model in models.items():
        model.fit(X[:20_000])
        norm = model.jacobian_norm(X_test[:2000]).mean()
        spread = np.sqrt(model.transform(X_test[:2000]).var(axis=0).sum())
        plain = plain or norm
        goal = {"CAE (alpha 10)": plain / 10}.get(name)
        note = f"{norm / spread:.2f} of the spread, R2 {model.score(X_test):.2f}"
        yield f"Jacobian norm, {name}", norm, goal, "<=", note


def sparse(X, y, X_test, y_test):
    """Compare the mean activation on held-out rows with the one asked for."""
    model = AutoencoderTransformer(
        196,
        hidden_layer_sizes=(),
        penalty="kl",
        alpha=3.0,
        sparsity_target=0.1,
        max_iter=5,
        learning_rate_init=3e-3,
        random_state=0,
    ).fit(X[:20_000])
    mean = model.transform(X_test).mean(axis=0)
    note = f"mean {mean.mean():.3f}, R2 {model.score(X_test):.2f}"
    distance = np.abs(mean - 0.1).mean()
    yield "sparse: mean activation of a unit, off 0.1 by", distance, 0.02, "<=", note


def denoising(X, y, X_test, y_test):
    """Compare a linear classifier on features with one on pixels, 10 000 rows."""
    X, y = X[:10_000], y[:10_000]
    model = DenoisingAutoencoder(
        1000,
        hidden_layer_sizes=(),
        code_activation="relu",
        corruption="masking",
        corruption_level=0.25,
        tied_weights=True,
        learning_rate_init=3e-3,
        max_iter=20,
        random_state=0,
    ).fit(X)
    pixels = accuracy(X, y, X_test, y_test)
    features = accuracy(model.transform(X), y, model.transform(X_test), y_test)
    note = f"pixels {pixels:.2f} %, features {features:.2f} %"
    yield "DAE features, points above pixels", features - pixels, 4.0, ">=", note


def accuracy(X, y, X_test, y_test):
    """Return percent right of logistic regression, C chosen on a fifth of X."""
    cut = len(X) * 4 // 5

    def fitted(C, X, y):
        scaled = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=100))
        return scaled.fit(X, y)

    scores = {
        C: fitted(C, X[:cut], y[:cut]).score(X[cut:], y[cut:])
        for C in (0.001, 0.01, 0.1)
    }
    return 100 * fitted(max(scores, key=scores.get), X, y).score(X_test, y_test)


def code(X, y, X_test, y_test):
    """Measure the squared error an image of 30 components."""
    for epochs, goal in ((5, 5.5), (20, None)):
        model = AutoencoderTransformer(
            30,
            hidden_layer_sizes=(512, 256),
            batch_size=128,
            learning_rate_init=3e-3,
            max_iter=epochs,
            random_state=0,
        ).fit(X)
        error = np.square(model.reconstruct(X_test) - X_test).sum(axis=1).mean()
        name = f"30 components, {epochs} epochs: squared error an image"
        yield name, error, goal, "<=", "PCA 13.9"


def vae(X, y, X_test, y_test):
    """Measure the bounds of the VAE everybody starts with."""
    rng = np.random.default_rng(0)
    # Binarised once, by the grey values.
    rows = (rng.random(X.shape, dtype=np.float32) < X).astype(np.float32)
    test = (rng.random(X_test.shape, dtype=np.float32) < X_test).astype(np.float32)
    for name, data, held_out in (
        ("grey", X, X_test),
        ("binarised", rows, test),
    ):
        model = VAE(
            20,
            hidden_layer_sizes=(400,),
            activation="relu",
            likelihood="bernoulli",
            max_iter=6,
            batch_size=128,
            learning_rate_init=2e-3,
            random_state=0,
        ).fit(data)
        goals = (103.5, 97.5) if name == "binarised" else (None, None)
        yield f"VAE, {name}: -ELBO", bound(model, held_out), goals[0], "<=", "nats"
        scores = model.score_samples(held_out[:500], n_importance_samples=100)
        nll = -scores.mean()
        yield f"VAE, {name}: NLL by 100 draws, 500 rows", nll, goals[1], "<=", "nats"


def bound(model, X):
    """Return minus the evidence lower bound with one draw a row, in nats."""
    module, generator = model.net_.module_, torch.Generator().manual_seed(0)
    losses = []
    with torch.inference_mode():
        for rows in np.array_split(X, 20):
            x = torch.from_numpy(rows)
            mean, log_var = module.posterior(x)
            noise = torch.empty_like(mean).normal_(generator=generator)
            z = mean + torch.exp(0.5 * log_var) * noise
            log_q = torch.distributions.Normal(0, 1).log_prob(noise) - 0.5 * log_var
            kl = log_q.sum(dim=1) - module.prior_distribution(None).log_prob(z)
            losses.append(kl - module.likelihood.log_prob(x, module.decode(z)))
    return torch.cat(losses).mean().item()


def conditional(X, y, X_test, y_test):
    """Ask a classifier of real digits for the labels of sampled ones."""
    rng = np.random.default_rng(0)
    # Samples of a Bernoulli likelihood are black and white: so are all rows here.
    X = (rng.random(X.shape, dtype=np.float32) < X).astype(np.float32)
    X_test = (rng.random(X_test.shape, dtype=np.float32) < X_test).astype(np.float32)
    model = ConditionalVAE(
        10,
        hidden_layer_sizes=(512,),
        activation="relu",
        likelihood="bernoulli",
        max_iter=10,
        batch_size=128,
        learning_rate_init=2e-3,
        random_state=0,
    ).fit(X, y)
    judge = MLPClassifier((256,), max_iter=6, random_state=0).fit(X, y)
    asked = np.repeat(np.arange(10), 200)
    drawn, labels = model.sample(len(asked), y=asked, random_state=0)
    right = 100 * np.mean(judge.predict(drawn) == labels)
    note = f"real test digits {100 * judge.score(X_test, y_test):.1f} %"
    yield "ConditionalVAE: percent of asked labels", right, 95.0, ">=", note


def likelihood(X, y, X_test, y_test, copies=10, epochs=80):
    """Train long on images binarised anew, and bound the likelihood of test images.

    Ten binarisations of every image stand for one drawn at each use.
    """
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [rng.random(X.shape, dtype=np.float32) < X for _ in range(copies)]
    ).astype(np.float32)
    test = (rng.random(X_test.shape, dtype=np.float32) < X_test).astype(np.float32)
    model = VAE(
        50,
        hidden_layer_sizes=(200, 200),
        likelihood="bernoulli",
        batch_size=128,
        learning_rate_init=2e-3,
        max_iter=epochs,
        early_stopping=False,
        random_state=0,
    ).fit(rows)
    scores = model.score_samples(test[:1000], n_importance_samples=5000)
    note = f"{model.n_active_components_} active of 50, {copies * epochs} passes"
    yield (
        "VAE 200-200-50: NLL by 5000 draws, first 1000 rows",
        -scores.mean(),
        93,
        "<=",
        note,
    )
    yield "VAE 200-200-50: -ELBO", bound(model, test), None, "<=", note


# Runs for an hour, so only where it is asked for by name.
LONG = ("likelihood",)
SECTIONS = {
    "jacobian": jacobian,
    "sparse": sparse,
    "denoising": denoising,
    "code": code,
    "vae": vae,
    "conditional": conditional,
    "likelihood": likelihood,
}


def earlier(path, sections):
    """Return the rows of other sections in an earlier results file."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text())["rows"]
    return [row for row in rows if row["section"] not in sections]


def main():
    """Run the sections and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    usual = [s for s in SECTIONS if s not in LONG]
    parser.add_argument("--data", required=True)
    parser.add_argument("--only", nargs="+", default=usual, choices=SECTIONS)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    images = load(args.data)
    rows = earlier(Path(args.out) / "mnist.json", args.only)
    for section in args.only:
        started = time.perf_counter()
        for name, value, goal, sign, note in SECTIONS[section](*images):
            if goal is None:
                wanted, met = "", ""
            else:
                met = value <= goal if sign == "<=" else value >= goal
                wanted, met = f"{sign} {goal:.4g}", "yes" if met else "no"
            rows.append(
                {
                    "section": section,
                    "measure": name,
                    "value": round(float(value), 3),
                    "goal": wanted,
                    "met": met,
                    "note": note,
                    "seconds": round(time.perf_counter() - started, 1),
                }
            )
            print(*rows[-1].values(), sep=" | ", flush=True)
    text = "One thread. Seconds count from the start of the section.\n\n"
    write(args.out, "mnist", rows, text + table(rows[0], [r.values() for r in rows]))


if __name__ == "__main__":
    main()
