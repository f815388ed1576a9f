"""
What was under the scratches?
=============================

A denoising autoencoder is trained on rows that were corrupted on purpose and asked
for the clean ones. So it learns how pixels depend on each other, and restores images
it has never seen. The baselines have the same number of components.
"""

# %%
# Restore new digits
# ------------------
# A quarter of the pixels are wiped out, or set to white or black at random. The errors
# are in grey levels from 0 to 16. A plain autoencoder is little better than PCA at what
# it was not trained for.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skvae import AutoencoderTransformer, DenoisingAutoencoder

X, y = load_digits(return_X_y=True)
X_train, X_test = train_test_split(X, test_size=0.3, random_state=0, stratify=y)
rng = np.random.default_rng(0)
hit = rng.random(X_test.shape) < 0.25
damaged = {
    "masking": np.where(hit, 0, X_test),
    "salt_and_pepper": np.where(hit, 16 * (rng.random(X_test.shape) < 0.5), X_test),
}


def error(restored):
    """Return the root of the mean squared error against the clean digits."""
    return np.sqrt(np.mean((restored - X_test) ** 2))


settings = {"n_components": 20, "max_iter": 100, "random_state": 0}
pca = PCA(20, random_state=0).fit(X_train)
plain = AutoencoderTransformer(**settings).fit(X_train)
restored = {}
for kind, X_bad in damaged.items():
    model = DenoisingAutoencoder(corruption=kind, corruption_level=0.25, **settings)
    restored[kind] = {
        "damaged": X_bad,
        "PCA": pca.inverse_transform(pca.transform(X_bad)),
        "plain autoencoder": plain.reconstruct(X_bad),
        "denoising": model.fit(X_train).reconstruct(X_bad),
    }
    errors = ", ".join(f"{k} {error(v):.2f}" for k, v in restored[kind].items())
    print(f"{kind}: {errors}")

# %%
# Look at them
# ------------
fig = plt.figure(figsize=(11, 3.3), layout="constrained")
for part, (kind, images) in zip(fig.subfigures(1, 2), restored.items(), strict=True):
    lines = {"clean": X_test, **images}
    axes = part.subplots(len(lines), 8)
    for line, (name, rows) in zip(axes, lines.items(), strict=True):
        for ax, image in zip(line, rows[:8], strict=True):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    part.suptitle(kind.replace("_", " "))
plt.show()
