"""
Can a drawn table stand in for the real one?
============================================

A data frame with a category, integers, a date and gaps goes in; a new one with the
same columns, types and dependences comes out. How close the two are is measured, and
so is whether rows were merely copied (that none is does not make a table anonymous).
"""

# %%
# A mixed table
# -------------
# The diabetes data, with what real tables have: a category, an integer, a date (of
# patients seen in the order of their progression, within a month or so) and gaps.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes

from skvae import VAE
from skvae.metrics import association_error, exact_copies, shape_error

raw = load_diabetes(as_frame=True, scaled=False).frame
rng = np.random.default_rng(0)
days = raw["target"].rank().to_numpy() / 2 + rng.normal(0, 20, len(raw))
table = pd.DataFrame(
    {
        "age": raw["age"].astype("int64"),
        "sex": pd.Categorical(np.where(raw["sex"] == 1, "a", "b")),
        "bmi": raw["bmi"],
        "pressure": raw["bp"].where(rng.random(len(raw)) > 0.1),
        "glucose": raw["s6"],
        "seen": pd.Timestamp("2024-01-01") + pd.to_timedelta(days.round(), unit="D"),
        "progression": raw["target"].astype("int64"),
    }
)
model = VAE(random_state=0).fit(table)
synthetic = model.sample(len(table), random_state=0)
print(synthetic.head())
assert (synthetic.dtypes == table.dtypes).all()

# %%
# How close is it?
# ----------------
# The baseline draws every column by itself from the real one: its columns are as good
# as they can be, and nothing depends on anything. Of 0 to 1, 0 is a perfect error.
shuffled = pd.DataFrame(
    {
        name: table[name].sample(frac=1, random_state=i).to_numpy()
        for i, name in enumerate(table)
    }
).astype(table.dtypes)
for name, frame in (("VAE", synthetic), ("columns shuffled", shuffled)):
    print(
        f"{name:17s} error of columns {shape_error(table, frame):.3f}, "
        f"of pairs {association_error(table, frame):.3f}, "
        f"rows copied {exact_copies(table, frame):.3f}"
    )
print(f"missing pressures: real {table['pressure'].isna().mean():.1%}, ", end="")
print(f"synthetic {synthetic['pressure'].isna().mean():.1%}")

# %%
# Rows on request
# ---------------
# ``given`` fixes some columns; the others are drawn from their distribution given
# these. Real rows with such values are few, which is why one asks.
heavy = model.sample(500, random_state=0, given={"sex": "b", "bmi": 35.0})
like = table[(table["sex"] == "b") & table["bmi"].between(33, 37)]
print(f"progression, median: all {table['progression'].median():.0f}", end="")
print(
    f", {len(like)} real rows near the request {like['progression'].median():.0f}",
    end="",
)
print(f", 500 drawn on request {heavy['progression'].median():.0f}")

# %%
# Real and drawn
# --------------
# Most correlations are kept. The one pair that is nearly a curve, date and progression,
# comes out looser than it is.


def numbers(frame):
    """Return a frame with every column as a number."""
    numeric = frame.assign(
        sex=(frame["sex"] == "b").astype(float),
        seen=(frame["seen"] - pd.Timestamp("2024-01-01")).dt.days,
    )
    return numeric.astype(float)


fig, axes = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained")
frames = {"442 real rows": table, "442 synthetic rows": synthetic}
for ax, (name, frame) in zip(axes, frames.items(), strict=False):
    image = ax.imshow(numbers(frame).corr(), cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(7), table.columns, rotation=60, ha="right")
    ax.set_yticks(range(7), table.columns)
    ax.set_title(name)
fig.colorbar(image, ax=axes[1], label="correlation")
last = axes[2]
for (name, frame), marker in zip(frames.items(), "ox", strict=True):
    last.scatter(frame["seen"], frame["progression"], s=12, marker=marker, label=name)
last.set(ylabel="progression", xlabel="seen")
last.tick_params(axis="x", rotation=60)
last.legend(fontsize=8)
plt.show()
