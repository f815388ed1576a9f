"""Nobody tuned it: the default model beats PCA on rows it has not seen."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skvae import AutoencoderTransformer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "k", "margin"),
    [
        ("wine", 2, -0.005),
        ("wine", 5, -0.005),
        ("breast_cancer", 2, -0.005),
        ("breast_cancer", 5, -0.005),
        ("diabetes", 2, -0.005),
        ("diabetes", 5, -0.005),
        ("digits", 2, 0.1),
        ("digits", 5, 0.1),
    ],
)
def test_default_beats_pca_on_held_out_rows(name, k, margin, request):
    X = request.getfixturevalue(name)
    gains = []
    for seed in range(3):
        train, test = train_test_split(X, test_size=0.2, random_state=seed)
        model = AutoencoderTransformer(k, random_state=seed).fit(train)
        scaled = [(part - model.center_) / model.scale_ for part in (train, test)]
        pca = PCA(k).fit(scaled[0])
        rest = scaled[1] - pca.inverse_transform(pca.transform(scaled[1]))
        spread = scaled[1] - scaled[0].mean(axis=0)
        gains.append(model.score(test) - 1 + (rest**2).sum() / (spread**2).sum())
    assert np.mean(gains) >= margin
