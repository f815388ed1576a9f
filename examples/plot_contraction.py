"""
Where does the code react, and where does it not?
=================================================

A contractive autoencoder pays for every reaction of its code to a small change of a
row. Only the direction in which the rows really vary is worth the price: along it the
code moves, across it the code is stiff. Rows on three quarters of a noisy circle, and
a code of one component, let one see it.
"""

# %%
# Reaction along the curve and across it
# --------------------------------------
# The two reactions are compared with each other, which does not depend on the scale of
# the code. A linear code (PCA) reacts in one direction everywhere, so across the curve
# too wherever the curve turns away from it. An autoencoder follows the curve by itself;
# the penalty makes it stiffer across, and here costs nothing in R2.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

from skvae import ContractiveAutoencoder

rng = np.random.default_rng(0)
angle = rng.uniform(0, 1.5 * np.pi, 2000)
radius = rng.normal(1, 0.08, 2000)
X = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
across = X / np.linalg.norm(X, axis=1, keepdims=True)
along = np.column_stack([-across[:, 1], across[:, 0]])


def reaction(model, direction, size=1e-4):
    """Return how far the code of each row moves for a small step, per length."""
    moved = model.transform(X + size * direction) - model.transform(
        X - size * direction
    )
    return np.abs(moved[:, 0]) / (2 * size)


settings = {"init": "random", "activation": "tanh", "scale": None, "max_iter": 200}
settings |= {"learning_rate_init": 0.005, "random_state": 0}
models = {
    "PCA": PCA(1).fit(X),
    "alpha=0": ContractiveAutoencoder(1, alpha=0.0, **settings).fit(X),
    "alpha=0.001": ContractiveAutoencoder(1, alpha=0.001, **settings).fit(X),
    "alpha=0.01": ContractiveAutoencoder(1, alpha=0.01, **settings).fit(X),
}
for name, model in models.items():
    on, off = reaction(model, along).mean(), reaction(model, across).mean()
    spread = model.transform(X).std()
    restored = model.inverse_transform(model.transform(X))
    r2 = 1 - np.sum((X - restored) ** 2) / np.sum((X - X.mean(axis=0)) ** 2)
    print(
        f"{name:12s} per spread of the code: along {on / spread:.3f}, "
        f"across {off / spread:.3f}, ratio {off / on:.2f}; R2 {r2:.3f}"
    )

# %%
# Lines of equal code
# -------------------
# All points of one shade get the same code. A code that is stiff across the curve has
# its bands across the curve, as spokes of a wheel.
side = np.linspace(-1.5, 1.5, 200)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
fig, axes = plt.subplots(
    1, 4, figsize=(10, 3.1), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    low, high = np.quantile(model.transform(X), [0.01, 0.99])
    code = model.transform(plane).reshape(200, 200)
    ax.contourf(
        side, side, code, np.linspace(low, high, 24), cmap="viridis", extend="both"
    )
    ax.scatter(*X[::4].T, s=3, color="white", alpha=0.6)
    ax.set(title=name, aspect="equal")
fig.suptitle("Bands of equal code, and the rows")
plt.show()
