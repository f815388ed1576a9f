"""Compare the defaults with the classical models they start at, side by side.

    python benchmarks/quality.py --data DIR [--sections reconstruct density ...]
        [--seeds 0 1 2] [--out benchmarks/results]

``DIR`` holds the folders ``uci``, ``anomaly`` and ``images``; the other sets are
scikit-learn's own. Every estimator of this library runs at its defaults apart from
the size of the code where the protocol fixes one. One thread; results of a section
join those of the others in the output folder.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _machine import table, write
from sklearn import datasets
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skvae import VAE, AutoencoderTransformer, ContractiveAutoencoder
from skvae.imputation import AutoencoderImputer
from skvae.outliers import AutoencoderOutlierDetector

Row = dict[str, Any]
UCI = {
    "concrete": "concrete.txt.gz",
    "energy": "energy.txt.gz",
    "yacht": "yacht.txt.gz",
    "wine-red": "wine-quality-red.txt.gz",
}
BUNDLED: dict[str, Callable[..., Any]] = {
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
}
ANOMALY = ["Ionosphere", "letter", "musk", "thyroid", "vowels", "WDBC", "breastw"]
ANOMALY.append("cardio")
# Pixels share one scale: neither model sees them standardised column by column.
PIXELS = {"digits", "mnist"}
RECONSTRUCT = [*BUNDLED, *UCI]
DENSITY = ["wine", "breast_cancer", "concrete", "wine-red"]
LABELLED = ["digits", "mnist", "breast_cancer", "Ionosphere", "cardio", "musk"]
# One row of the smallest test set is 1.4 % of its accuracy.
LABELLED_SEEDS = [*range(10)]
JITTER = 0.1
MIXTURE_SIZES = (1, 2, 3, 5, 8, 12, 20)


def load(name: str, data: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return rows and labels of a set (labels None where the columns are all)."""
    if name in BUNDLED:
        X, y = BUNDLED[name](return_X_y=True)
        return X, y
    if name in UCI:
        return np.loadtxt(data / "uci" / UCI[name]), None
    if name == "mnist":
        return _mnist(data)
    (path,) = (data / "anomaly").glob(f"*_{name}.npz")
    with np.load(path) as arrays:
        return arrays["X"].astype(float), arrays["y"].astype(int)


def _mnist(data: Path, n: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images of MNIST, pixels in [0, 1]."""

    def read(kind: str, offset: int) -> np.ndarray:
        with gzip.open(data / "images" / f"mnist-train-{kind}-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    images = read("images-idx3", 16).reshape(-1, 784)[:n]
    return images / 255.0, read("labels-idx1", 8)[:n].astype(int)


def split(name: str, data: Path, seed: int) -> tuple[Any, Any, Any, Any]:
    """Return training and test rows (standardised unless pixels) and their labels."""
    X, y = load(name, data)
    y = np.zeros(len(X), int) if y is None else y
    train, test, y_train, y_test = train_test_split(
        X, y, test_size=0.2, random_state=seed
    )
    if name not in PIXELS:
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
    return train, test, y_train, y_test


def r2(x: np.ndarray, guess: np.ndarray, mean: np.ndarray) -> float:
    """Return the share of the squared distance to the training mean explained."""
    return 1 - float(((x - guess) ** 2).sum() / ((x - mean) ** 2).sum())


class Cost(NamedTuple):
    """CPU seconds of a fit, and how far it came on the rows it held out itself."""

    seconds: float
    gain: float | None


def timed(model: Any, *rows: Any) -> tuple[Any, Cost]:
    """Fit a model and return it with what it cost and gained."""
    started = time.process_time()
    model.fit(*rows)
    seconds = time.process_time() - started
    inner = getattr(model, "estimator_", model)
    best = inner.best_loss_
    return model, Cost(seconds, None if best is None else inner.baseline_loss_ - best)


# -- sections --------------------------------------------------------------------------
def reconstruct(data: Path, seeds: list[int]) -> Iterator[Row]:
    """Compare held-out R2 of the autoencoder and PCA at the same code size."""
    for name in RECONSTRUCT:
        for k in (2, 5):
            ours, pca, costs = [], [], []
            for seed in seeds:
                train, test, *_ = split(name, data, seed)
                mean = train.mean(axis=0)
                model, cost = timed(AutoencoderTransformer(k, random_state=seed), train)
                ours.append(r2(test, model.reconstruct(test), mean))
                linear = PCA(k, random_state=seed).fit(train)
                back = linear.inverse_transform(linear.transform(test))
                pca.append(r2(test, back, mean))
                costs.append(cost)
            yield _row(f"{name}, k={k}", "R2", ours, {"PCA": pca}, costs)


def density(data: Path, seeds: list[int]) -> Iterator[Row]:
    """Compare held-out log-likelihoods of standardised, slightly jittered rows."""
    for name in DENSITY:
        ours, fa, gmm, costs = [], [], [], []
        for seed in seeds:
            train, test, *_ = split(name, data, seed)
            rng = np.random.RandomState(seed)
            train = train + JITTER * rng.normal(size=train.shape)
            test = test + JITTER * rng.normal(size=test.shape)
            model, cost = timed(VAE(random_state=seed), train)
            ours.append(model.score_samples(test, n_importance_samples=500).mean())
            costs.append(cost)
            fit, valid = train_test_split(train, test_size=0.1, random_state=seed)
            fa.append(_best(_factor_analyses(train.shape[1]), fit, valid, test))
            gmm.append(_best(_mixtures(seed), fit, valid, test))
        baselines = {"FactorAnalysis": fa, "GaussianMixture": gmm}
        yield _row(name, "log-likelihood, nats", ours, baselines, costs)


def _factor_analyses(d: int) -> list[Any]:
    return [FactorAnalysis(k) for k in range(1, d, max(1, d // 10))]


def _mixtures(seed: int) -> list[Any]:
    return [
        GaussianMixture(n, covariance_type=kind, reg_covar=1e-2, random_state=seed)
        for n in MIXTURE_SIZES
        for kind in ("full", "tied", "diag")
    ]


def _best(models: list[Any], fit: Any, valid: Any, test: Any) -> float:
    """Return the test score of the model with the best validation score."""
    fitted = [model.fit(fit) for model in models]
    return float(max(fitted, key=lambda model: model.score(valid)).score(test))


def neighbours(data: Path, seeds: list[int]) -> Iterator[Row]:
    """Compare five nearest neighbours in the code and in PCA's."""
    for k in (2, 10):
        ours, pca, costs = [], [], []
        for seed in seeds:
            train, test, y, y_test = split("digits", data, seed)
            model, cost = timed(AutoencoderTransformer(k, random_state=seed), train)
            for encoder, found in ((model, ours), (PCA(k).fit(train), pca)):
                knn = KNeighborsClassifier(5).fit(encoder.transform(train), y)
                found.append(knn.score(encoder.transform(test), y_test))
            costs.append(cost)
        yield _row(f"digits, k={k}", "5-NN accuracy", ours, {"PCA": pca}, costs)


def linear(data: Path, seeds: list[int], k: int = 16) -> Iterator[Row]:
    """Compare logistic regression on the code and on PCA's scores."""
    for name in LABELLED:
        ours, pca, costs = [], [], []
        for seed in LABELLED_SEEDS:
            train, test, y, y_test = split(name, data, seed)
            model, cost = timed(AutoencoderTransformer(k, random_state=seed), train)
            for encoder, found in ((model, ours), (PCA(k).fit(train), pca)):
                head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
                head.fit(encoder.transform(train), y)
                found.append(head.score(encoder.transform(test), y_test))
            costs.append(cost)
        row = _row(f"{name}, k={k}", "accuracy", ours, {"PCA": pca}, costs)
        yield row | {"seeds": LABELLED_SEEDS}


def anomaly(data: Path, seeds: list[int]) -> Iterator[Row]:
    """Compare how well scores separate anomalies: fit on all rows, no labels."""
    for name in ANOMALY:
        X, y = load(name, data)
        scaled = StandardScaler().fit_transform(X)
        ours, costs = [], []
        others: dict[str, list[float]] = {
            "IsolationForest": [],
            "FactorAnalysis": [],
            "PCA": [],
            "VAE()": [],
        }
        k = min(10, X.shape[1] // 2)
        for seed in seeds:
            model, cost = timed(AutoencoderOutlierDetector(random_state=seed), X)
            ours.append(roc_auc_score(y, -model.score_samples(X)))
            costs.append(cost)
            forest = IsolationForest(random_state=seed).fit(X)
            scores = {
                "IsolationForest": forest.score_samples(X),
                "FactorAnalysis": FactorAnalysis(k).fit(scaled).score_samples(scaled),
            }
            pca = PCA(k, random_state=seed).fit(scaled)
            back = pca.inverse_transform(pca.transform(scaled))
            scores["PCA"] = -((scaled - back) ** 2).sum(axis=1)
            scores["VAE()"] = VAE(random_state=seed).fit(X).score_samples(X)
            for other, score in scores.items():
                others[other].append(roc_auc_score(y, -score))
        yield _row(name, "ROC AUC", ours, others, costs)


def imputation(data: Path, seeds: list[int]) -> Iterator[Row]:
    """Compare fills of rows that lost half of their cells completely at random."""
    for name in ("breast_cancer", "concrete"):
        X = StandardScaler().fit_transform(load(name, data)[0])
        # The mask of Mattei and Frellsen's notebooks: one mask, by the old generator.
        mask = np.random.RandomState(1234)
        cells = mask.choice(X.size, X.size // 2, replace=False)
        gaps = X.copy()
        gaps.ravel()[cells] = np.nan
        missing = np.isnan(gaps)

        def error(filled: np.ndarray, X: Any = X, missing: Any = missing) -> float:
            return float(((filled - X)[missing] ** 2).mean())

        ours, costs = [], []
        for seed in seeds:
            model, cost = timed(AutoencoderImputer(random_state=seed), gaps)
            ours.append(error(model.transform(gaps)))
            costs.append(cost)
        others: dict[str, Any] = {
            "IterativeImputer": IterativeImputer(BayesianRidge(), random_state=0),
            "KNNImputer": KNNImputer(),
            "mean": SimpleImputer(),
        }
        baselines = {k: [error(m.fit_transform(gaps))] for k, m in others.items()}
        yield _row(name, "mean squared error", ours, baselines, costs)


def regularisation(data: Path, seeds: list[int]) -> Iterator[Row]:
    """Measure on new digits what five strengths of three penalties do."""
    families: dict[str, tuple[Any, Any, Any]] = {
        "KL in nats, VAE(5), beta": (
            (0.25, 0.5, 1.0, 2.0, 4.0),
            lambda v: VAE(5, beta=v, likelihood="gaussian", noise=0.2, prior="normal"),
            _divergence,
        ),
        "mean activation, penalty='kl', sparsity_target": (
            (0.05, 0.1, 0.2, 0.3, 0.4),
            lambda v: AutoencoderTransformer(
                32, penalty="kl", alpha=3.0, sparsity_target=v
            ),
            lambda model, rows: model.transform(rows).mean(),
        ),
        "Jacobian norm, ContractiveAutoencoder(10), alpha": (
            (0.001, 0.01, 0.1, 1.0, 10.0),
            lambda v: ContractiveAutoencoder(10, alpha=v),
            lambda model, rows: model.jacobian_norm(rows).mean(),
        ),
    }
    for name, (values, make, measure) in families.items():
        found, costs = [], []
        for seed in seeds:
            train, test, *_ = split("digits", data, seed)
            figures = []
            for value in values:
                model = make(value).set_params(random_state=seed)
                model, cost = timed(model, train / 16)
                figures.append(float(measure(model, test / 16)))
                costs.append(cost)
            found.append(figures)
        steps = np.diff(np.array(found), axis=1)
        rises = name.startswith("mean")
        holds = (steps > 0).all() if rises else (steps < 0).all()
        grid = ", ".join(f"{v:g}" for v in values)
        means = {f"{i + 1}.": list(f) for i, f in enumerate(np.transpose(found))}
        row = _row(f"{name} = {grid}", "five strengths", [float(holds)], means, costs)
        yield row


def _divergence(model: VAE, rows: np.ndarray) -> float:
    mean, std = model.transform(rows, return_std=True)
    return float((0.5 * (mean**2 + std**2 - 1) - np.log(std)).sum(axis=1).mean())


def _row(
    data: str,
    metric: str,
    ours: list[float],
    baselines: dict[str, list[float]],
    costs: list[Cost],
) -> Row:
    return {
        "data": data,
        "metric": metric,
        "ours": [float(v) for v in ours],
        "baselines": {name: [float(v) for v in b] for name, b in baselines.items()},
        "seconds": [cost.seconds for cost in costs],
        "gains": [cost.gain for cost in costs if cost.gain is not None],
    }


SECTIONS: dict[str, Callable[[Path, list[int]], Iterator[Row]]] = {
    "reconstruct": reconstruct,
    "density": density,
    "neighbours": neighbours,
    "linear": linear,
    "anomaly": anomaly,
    "imputation": imputation,
    "regularisation": regularisation,
}
PROTOCOL = {
    "reconstruct": "`AutoencoderTransformer(k)`; 80/20 split; R2 of test rows, columns "
    "standardised on the training rows (digits: as they are).",
    "density": "`VAE()`, bound with 500 importance samples; 80/20 split; standardised "
    "columns plus N(0, 0.1^2). Factor analysis and mixture (1 to 20 components; full, "
    "tied, diag) chosen on a tenth of the training rows.",
    "neighbours": "`AutoencoderTransformer(k)`; 80/20 split.",
    "linear": "`AutoencoderTransformer(16)`; 80/20 split; codes standardised, then "
    "LogisticRegression; seeds 0 to 9. mnist: the first 6000 images.",
    "anomaly": "`AutoencoderOutlierDetector()`, whose score is the bound of a stiff "
    "VAE; fitted on all rows without labels. `VAE()` is the model at its own defaults, "
    "which learns the anomalies too.",
    "imputation": "`AutoencoderImputer()`; half of the standardised cells hidden "
    "completely at random; squared error of the hidden cells, so lower is better. "
    "IterativeImputer regresses by BayesianRidge.",
    "regularisation": "Digits, pixels in [0, 1]; held-out rows of an 80/20 split. The "
    "first column is 1 if the figure falls (mean activation: rises) at every step in "
    "every seed.",
}


# -- results ---------------------------------------------------------------------------
def markdown(rows: list[Row], seeds: list[int]) -> str:
    """Return the page of all sections found in the rows."""
    pages = [
        f"Defaults of this library. Means over seeds {seeds}, unless said otherwise; "
        "one thread. *Worst gain*: by how much the held-out loss of a fit fell below "
        "that of its start, in nats a row, in the seed where it fell least; 0 is a fit "
        "that kept its start. - is a fit that holds nothing out.\n"
    ]
    for section in SECTIONS:
        found = [row for row in rows if row["section"] == section]
        if not found:
            continue
        names = list(found[0]["baselines"])
        lines = [_line(row, names) for row in found]
        costs = ["worst gain, nats", "fit, CPU s"]
        columns = ["data", "ours", *names, *(f"minus {n}" for n in names), *costs]
        if section == "regularisation":
            columns = ["", "monotone", *names, *costs]
            lines = [[*line[: len(names) + 2], *line[-2:]] for line in lines]
        else:
            lines.append(["**mean**", *_column_means(lines)])
        pages.append(f"## {section}: {found[0]['metric']}\n\n{PROTOCOL[section]}\n")
        pages.append(table(columns, lines) + "\n")
    return "\n".join(pages)


def _line(row: Row, names: list[str]) -> list[str]:
    ours = float(np.mean(row["ours"]))
    others = [float(np.mean(row["baselines"][name])) for name in names]
    gains = [f"{ours - other:+.3f}" for other in others]
    figures = [f"{value:.3f}" for value in (ours, *others)]
    worst = f"{min(row['gains']):.2f}" if row.get("gains") else "-"
    return [row["data"], *figures, *gains, worst, f"{np.mean(row['seconds']):.1f}"]


def _column_means(lines: list[list[str]]) -> list[str]:
    values = [[float(cell) for cell in (*line[1:-2], line[-1])] for line in lines]
    *figures, seconds = np.mean(values, axis=0)
    half = 1 + (len(figures) - 1) // 2
    plain = [f"{v:.3f}" for v in figures[:half]]
    return [*plain, *(f"{v:+.3f}" for v in figures[half:]), "", f"{seconds:.1f}"]


def main() -> None:
    """Run the sections asked for and write their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=[*SECTIONS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = _earlier(options.out / "quality.json", options.sections)
    rows: list[Row] = []
    with threadpool_limits(1):
        for section in options.sections:
            for row in SECTIONS[section](options.data, options.seeds):
                rows.append({"section": section, "seeds": options.seeds, **row})
                print(section, *_line(row, list(row["baselines"])), flush=True)
    page = markdown(kept + rows, options.seeds)
    write(options.out, "quality", kept + rows, page)
    print(page)


def _earlier(path: Path, sections: list[str]) -> list[Row]:
    """Return the rows of other sections in an earlier results file."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text())["rows"]
    return [row for row in rows if row["section"] not in sections]


if __name__ == "__main__":
    main()
