"""
Can a model write the digit I ask for?
======================================

A conditional variational autoencoder is told the class of each row while it is
trained. So it draws rows of a class one asks for, without drawing many and throwing
most away, and it can show what a row would have been like in another class.
"""

# %%
# Ask for each digit
# ------------------
# The judge is a classifier that has seen real digits only. The baseline has no
# network: ten factor analyses, one a class, which is hard to beat at drawing but knows
# nothing of what the classes share.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import FactorAnalysis
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from skvae import ConditionalVAE

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, random_state=0, stratify=y
)
judge = SVC(C=10).fit(X_train, y_train)
print(f"judge on new real digits: {judge.score(X_test, y_test):.3f}")

model = ConditionalVAE(4, max_iter=100, random_state=0).fit(X_train, y_train)
asked = np.repeat(np.arange(10), 100)
drawn, _ = model.sample(len(asked), y=asked, random_state=0)
print(f"judge on digits drawn by ConditionalVAE: {judge.score(drawn, asked):.3f}")


def drawn_by_factors(rows, n, rng):
    """Draw n rows from a factor analysis of the rows."""
    factors = FactorAnalysis(4, random_state=0).fit(rows)
    noise = rng.normal(size=(n, rows.shape[1])) * np.sqrt(factors.noise_variance_)
    return rng.normal(size=(n, 4)) @ factors.components_ + factors.mean_ + noise


rng = np.random.default_rng(0)
parts = [drawn_by_factors(X_train[y_train == c], 100, rng) for c in range(10)]
print(
    "judge on digits drawn by ten factor analyses: "
    f"{judge.score(np.concatenate(parts), asked):.3f}"
)
right = np.mean(model.predict(X_test) == y_test)
print(f"accuracy of the model's own predict: {right:.3f}")
# %%
# One column a handwriting
# ------------------------
# The code holds what the class does not say. Decoded with another class, it keeps
# slant and width: each row below is one new digit, on the left as it is, then as each
# of the ten classes.
codes = np.random.default_rng(1).normal(size=(12, 4))
written = [model.inverse_transform(codes, y=c).reshape(-1, 8, 8) for c in range(10)]
originals = np.array([np.flatnonzero(y_test == c)[0] for c in range(10)])
others = [
    model.reconstruct(X_test[originals], y=c).reshape(-1, 8, 8) for c in range(10)
]


def show(ax, image):
    """Draw one digit without a frame."""
    ax.imshow(image, cmap="gray_r", vmin=0, vmax=16)
    ax.set_axis_off()


fig = plt.figure(figsize=(10, 5.4), layout="constrained")
left, right = fig.subfigures(1, 2)
for c, line in enumerate(left.subplots(10, 12)):
    for ax, image in zip(line, written[c], strict=True):
        show(ax, image)
left.suptitle("One row a class, one column a code")
for i, line in enumerate(right.subplots(len(originals), 11)):
    show(line[0], X_test[originals[i]].reshape(8, 8))
    line[0].imshow(np.full((8, 8), 1.0), cmap="Blues", alpha=0.15, vmin=0, vmax=1)
    for c in range(10):
        show(line[c + 1], others[c][i])
right.suptitle("A new digit (blue) as each class")
plt.show()
