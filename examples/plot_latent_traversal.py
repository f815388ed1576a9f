"""
What lies between two digits?
=============================

A straight line between two images fades one out and the other in: its middle is two
digits at once. A line between two *codes* of a variational autoencoder should pass
through images that could be digits. How well it does so can be measured: by how far
the middle of the line is from the nearest real digit.
"""

# %%
# Fit the model
# -------------
# Eight components, of which the model says how many nats each carries.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import FactorAnalysis
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skvae import VAE

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, random_state=0, stratify=y
)
vae = VAE(8, max_iter=80, random_state=0).fit(X_train)
linear = FactorAnalysis(8, random_state=0).fit(X_train)
print(f"log-likelihood of new digits (a bound), nats: {vae.score(X_test):.1f}")
print("nats per component:", np.round(vae.kl_per_component_, 1))

# %%
# Is the middle of the way a digit?
# ---------------------------------
# Two hundred pairs of new digits of different classes, and three ways to go half way:
# in pixels, in the codes of factor analysis, in the codes of the VAE. The distance to
# the nearest training digit is small for what looks like one.
rng = np.random.default_rng(0)
pairs = rng.integers(len(X_test), size=(400, 2))
pairs = pairs[y_test[pairs[:, 0]] != y_test[pairs[:, 1]]][:200]
X_from, X_to = X_test[pairs[:, 0]], X_test[pairs[:, 1]]


def decoded(codes):
    """Decode codes of factor analysis, which has no inverse_transform."""
    return codes @ linear.components_ + linear.mean_


half = (linear.transform(X_from) + linear.transform(X_to)) / 2
middles = {
    "pixels": (X_from + X_to) / 2,
    "factor analysis": decoded(half),
    "VAE": vae.interpolate(X_from, X_to, n_steps=3)[1::3],
}
nearest = NearestNeighbors(n_neighbors=1).fit(X_train)
for name, middle in middles.items():
    distance = nearest.kneighbors(middle)[0].mean()
    print(f"half way in {name:16s} nearest digit at {distance:.1f}")
typical = nearest.kneighbors(X_test)[0].mean()
print(f"{'real new digits':28s} nearest digit at {typical:.1f}")

# %%
# Look at walks
# -------------
# Above: three walks in pixels and in codes. A fade shows both digits half way; a walk
# in codes bends one into the other. Below: the three components that carry most nats,
# each moved from -2.5 to 2.5 while the others stay at the code of a new 3.
steps = 11
share = np.linspace(0, 1, steps)[None, :, None]
chosen = np.arange(3)
walks = vae.interpolate(X_from[chosen], X_to[chosen], steps).reshape(3, steps, 64)
fades = X_from[chosen, None] + share * (X_to - X_from)[chosen, None]
strongest = np.argsort(vae.kl_per_component_)[::-1][:3]
three = X_test[y_test == 3][:1]
moved = [vae.traverse(k, np.linspace(-2.5, 2.5, steps), three) for k in strongest]

fig, axes = plt.subplots(9, steps, figsize=(8, 7), layout="constrained")
rows = [image for pair in zip(fades, walks, strict=True) for image in pair] + moved
names = ["pixels", "codes"] * 3 + [f"component {k}" for k in strongest]
for line, row, name in zip(axes, rows, names, strict=True):
    for ax, image in zip(line, row, strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
fig.suptitle("From one digit to another, and along one component")
plt.show()
