"""Constructors written once, as fields, and the text of the parameters they share."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T", bound=type)

PARAMETERS = {
    "n_components": """
n_components : int or "auto", default="auto"
    Components of the code. ``"auto"`` is half the columns, one less than the
    columns for a variational model (its prior switches off what is not needed),
    at most 10. Of a table it is the number of codes (levels and bins of all columns)
    less that of the columns, at least 2 and at most 10. More components than columns
    are allowed.
""",
    "hidden_layer_sizes": """
hidden_layer_sizes : tuple of int or "auto", default="auto"
    Hidden units of the encoder, from the data to the code; the decoder mirrors
    them. ``()`` is the linear model itself. ``"auto"`` is ``(128, 64)``, and
    ``(256, 256)`` for tables.
""",
    "activation": """
activation : {"silu", "relu", "tanh", "logistic", "gelu", "elu", "leaky_relu", \\
        "softplus", "identity"}, default="silu"
    Activation of the hidden units.
""",
    "batch_size": """
batch_size : int or "auto", default="auto"
    Rows an optimiser step. ``"auto"`` is ``min(128, n_samples)``, 256 above
    50 000 rows, 512 for tables above 10 000.
""",
    "learning_rate_init": """
learning_rate_init : float or "auto", default="auto"
    Peak step size of AdamW. It rises over the first 5 % of the steps and falls
    to zero along a cosine. ``"auto"`` is 0.001, 0.002 for a variational model, 0.003
    for tables whose columns do not see each other, 0.006 above 10 000 rows.
""",
    "max_iter": """
max_iter : int or "auto", default="auto"
    Epochs at most. ``"auto"`` is enough for about 3000 optimiser steps (2000 for a
    variational model, 500 below 50 rows; 2000 for a table, but at most 1000 epochs,
    and 2250 above 10 000 rows; 1250 for a variational model of a table below 1900
    rows, rising to 2000 at 3000) and at least 5. With 0 the model is the one training
    would start at: PCA, or factor analysis.
""",
    "early_stopping": """
early_stopping : bool, default=True
    Whether to hold rows out, keep the weights with the lowest held-out loss (the
    start included), and stop when it no longer improves. For tables the last
    weights are kept whose loss is within a standard error of the lowest, and not
    above the start's. Below 50 rows none are held out.
""",
    "validation_fraction": """
validation_fraction : float, default=0.1
    Share of the rows held out, at least 10 and at most 10 000 rows. At least 2 must
    be left to train on.
""",
    "n_iter_no_change": """
n_iter_no_change : int or "auto", default="auto"
    Epochs without a better held-out loss (for tables, without one worth keeping)
    before training stops. ``"auto"`` is a fifth of ``max_iter``, and at least 5.
""",
    "warm_start": """
warm_start : bool, default=False
    Whether ``fit`` goes on from the weights of the last fit. Parameters that decide
    the network must still say the same.
""",
    "random_state": """
random_state : int, RandomState instance or None, default=None
    Seeds weights, split, shuffling and noise. An int gives the same bits at
    every call.
""",
    "verbose": """
verbose : int, default=0
    Above 0, a table with one line an epoch is printed.
""",
    "weight_decay": """
weight_decay : float, default=0.0
    Decoupled weight decay of the weight matrices. Above 0 it is passed on to an own
    optimiser in `net_params`, which may decay otherwise.
""",
    "dropout": """
dropout : float, default=0.0
    Share of hidden units dropped while training, in [0, 1).
""",
    "init": """
init : {"auto", "random"}, default="auto"
    Where training starts. ``"auto"`` adds a linear path to the networks and
    starts at the classical model; ``"random"`` is a plain network with random
    weights.
""",
    "init_layerwise": """
init : {"auto", "random", "layerwise"}, default="auto"
    Where training starts. ``"auto"`` adds a linear path to the networks and
    starts at PCA; ``"random"`` is a plain network with random weights.
    ``"layerwise"`` trains the layers of the plain network one by one first, each
    as an autoencoder of what the layers before it give, from corrupted inputs
    where the model has a corruption; it takes a quarter more steps.
""",
    "code_activation": """
code_activation : {"logistic", "relu"} or None, default=None
    Activation of the code. With one, the code is a layer of features for a linear
    model rather than coordinates, and training starts at random instead of PCA. With
    ``"relu"`` components may stay at zero for all rows; `summary` counts them.
""",
    "encoder": """
encoder : torch.nn.Module, callable or None, default=None
    Own encoder: a module (copied, never trained in place) or a factory
    ``(n_in, n_out) -> Module``. None is the network described by
    `hidden_layer_sizes`. Where training rows have missing cells it gets twice as many
    numbers as columns: the scaled cells, zero where missing, then 1 for each observed
    cell and 0 for each missing one.
""",
    "decoder": """
decoder : torch.nn.Module, callable or None, default=None
    Own decoder, as for `encoder`.
""",
    "scale": """
scale : "auto" or None, default="auto"
    ``"auto"`` leaves data in [0, 1] alone if most columns reach beyond 0.25, divides
    non-negative integers of one common range by their maximum, and standardises the
    columns otherwise. Integers have no common range if one column stays below a
    quarter of the maximum (of 16 columns or more, one that is not mostly zero). It is
    undone wherever rows are returned. None trains on the data as they are. Counts of
    a poisson likelihood are not scaled; the encoder sees their standardised
    log(1 + x).
""",
    "categorical_features": """
categorical_features : "from_dtype" or array-like, default="from_dtype"
    Columns that are categories though they hold numbers: names, indices or a
    boolean mask. ``"from_dtype"`` takes the columns that are not numeric.
""",
    "missing_values": """
missing_values : {"mask", "error"}, default="mask"
    ``"mask"`` accepts NaN: such cells are left out of the loss and the encoder is
    told which they are. ``"error"`` refuses them.
""",
    "device": """
device : str or torch.device, default="auto"
    ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; ``"auto"`` takes a GPU where
    there is one.
""",
    "callbacks": """
callbacks : list of skorch callbacks or None, default=None
    Cloned before use. With any, held-out rows are judged in every epoch, also where
    it has few steps; what is kept does not depend on callbacks that only watch.
""",
    "net_params": """
net_params : dict or None, default=None
    Anything else a skorch net takes, such as ``{"optimizer": torch.optim.SGD}`` or
    ``{"accelerator": accelerate.Accelerator(mixed_precision="bf16")}``, which then
    chooses the device. Either takes skorch's own, slower step.
""",
    "input_noise": """
input_noise : float or "auto", default="auto"
    Standard deviation of gaussian noise on the encoder's input while training, in
    scaled units. ``"auto"`` is ``sqrt(10 / n_samples)``, at most 0.3, and 0 from
    2000 training rows on.
""",
    "likelihood": r"""
likelihood : {"auto", "gaussian", "bernoulli", "continuous_bernoulli", \
        "poisson", "table"} or dict, default="auto"
    Family of :math:`p(x \mid z)`. ``"table"`` gives every column a categorical
    head over its levels, repeated values and quantile bins. ``"poisson"`` is for
    whole numbers, which is not checked: scores of others are of no density.
    ``"auto"`` is table where a column is not numeric, a cell is missing, or a frame
    (50 rows or more, at most 64 columns) holds integers, the latter two for
    variational models; bernoulli for data in {0, 1} and gaussian otherwise. A dict
    is a table in which the columns it names (by name or position) have another
    head: ``"gaussian"``, a normal density in normal scores spread over the codes, or
    ``"categorical"``, a probability for every value.
""",
    "noise": r"""
noise : {"auto", "feature", "shared", "heteroscedastic"} or float, default="auto"
    Scale of a gaussian likelihood: one variance a column, one for all, one that
    depends on the code, or a fixed standard deviation in scaled units. ``"auto"``
    depends on the code from 270 training rows on, and is one a column below, and
    with an own `encoder` or `decoder`, ``max_iter=0``, or rows without a label.
""",
    "beta": r"""
beta : float or "auto", default="auto"
    Weight of the divergence in the loss. Scores always use 1. ``"auto"`` is 1;
    for tables 0.85 where columns see those before them, and 0.7 where they do not
    (more than 256 columns, or an own `decoder`).
""",
    "kl_warmup": r"""
kl_warmup : float or "auto", default="auto"
    Share of the training over which beta rises from 0, in [0, 1]. ``"auto"`` is 0
    from a classical start and 0.1 from a random one.
""",
    "free_bits": r"""
free_bits : float, default=0.0
    Nats a component may use at no cost. Above 0 it needs ``prior="normal"`` (which
    ``"auto"`` then is) and one importance sample.
""",
    "n_importance_samples": r"""
n_importance_samples : int, default=1
    Draws of the code per row while training; above 1 the importance-weighted
    bound (Burda et al. 2016) is maximised.
""",
    "prior": r"""
prior : {"auto", "normal", "mixture", "vamp"}, default="auto"
    Family of :math:`p(z)`: standard normal; a mixture of normals learned with the
    model, fitted to the codes at the start; or a mixture of the posteriors of learned
    pseudo-rows (VampPrior, Tomczak and Welling 2018). ``"auto"`` is normal with
    ``init="random"`` or `free_bits`, and otherwise a mixture: for tables always, for
    other rows without `beta`, an own network and ``max_iter=0``. After training a
    mixture is fitted to the codes once more and kept if that raises the bound of
    held-out rows. The mixture of a table is held near the standard normal until then,
    the more so the fewer the rows. A VampPrior starts as the posteriors of few training
    rows, which are narrow: the bound begins far below that of the classical model.
""",
}

ATTRIBUTES = {
    "kl_per_component_": """
kl_per_component_ : ndarray of shape (n_components,)
    Mean divergence of each component's posterior from a standard normal over the
    training rows, in nats.
""",
    "n_active_components_": """
n_active_components_ : int
    Components whose posterior mean has a variance above 0.01 over the rows.
""",
    "input_noise_": """
input_noise_ : float
    Standard deviation of the noise on the encoder's input while training, in
    scaled units. For a variational model with a classical start it is at most
    ``sqrt(5 / n_samples)`` and never more than the noise the start finds in a
    column. For a table it is the share of cells hidden from the encoder of a
    variational model, ``sqrt(30 / n_samples)``, at most 0.3, and 0 from 10,000
    training rows on; 0 for other models.
""",
    "noise_": """
noise_ : str or float
    Resolved `noise`. With gaussian columns only, not of tables.
""",
    "n_components_": """
n_components_ : int
    Components of the code.
""",
    "net_": """
net_ : skorch.NeuralNet
    The trained skorch net; its ``module_`` is the torch module.
""",
    "n_iter_": """
n_iter_ : int
    Epochs run.
""",
    "loss_curve_": """
loss_curve_ : list of float
    Training loss of each epoch, in nats per row, penalties included.
""",
    "validation_loss_curve_": """
validation_loss_curve_ : list of float or None
    Held-out loss of each epoch (the last one computed), or None without held-out
    rows.
""",
    "best_loss_": """
best_loss_ : float or None
    Held-out loss of the weights kept: the lowest, or for a table one within a
    standard error of it.
""",
    "baseline_loss_": """
baseline_loss_ : float or None
    Held-out loss before training, that of the model training starts at.
""",
    "learning_rate_": """
learning_rate_ : float
    Peak step size.
""",
    "explained_variance_ratio_": """
explained_variance_ratio_ : ndarray of shape (n_components,)
    Share of the variance of scaled training rows that each component explains on
    top of those before it, the rest of the code at its mean. They sum to the R2 of
    the reconstruction, and are those of PCA for the model training starts at, but for
    sampling: at most 1000 rows are measured, of wide data with many components fewer.
    Not of tables.
""",
    "noise_variance_": """
noise_variance_ : ndarray of shape (n_features,)
    Variance of the columns that the code leaves unexplained, in squared units of
    the columns. With gaussian columns only, not of tables.
""",
    "n_features_in_": """
n_features_in_ : int
    Columns seen in ``fit``.
""",
    "feature_names_in_": """
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Names of the columns seen in ``fit``, where all of them are strings.
""",
    "batch_size_": """
batch_size_ : int
    Rows an optimiser step.
""",
    "max_iter_": """
max_iter_ : int
    Epochs at most.
""",
    "center_": """
center_ : ndarray of shape (n_features,)
    What scaling subtracts from each column. Not of tables.
""",
    "scale_": """
scale_ : ndarray of shape (n_features,)
    What scaling divides each column by. Not of tables.
""",
    "likelihood_": """
likelihood_ : str
    Likelihood of the columns.
""",
    "device_": """
device_ : str
    Device trained on.
""",
}


@dataclass_transform(kw_only_default=True)
def estimator(cls: T) -> T:
    """Make the annotated fields of a class its constructor, and fill in its docstring.

    Lines ``%(name)s`` of the docstring are replaced by the shared text of the
    parameter or attribute ``name``.
    """
    make: Any = dataclass(eq=False, repr=False, kw_only=True)
    made = make(cls)
    made.__doc__ = _filled(cls.__doc__ or "")
    return made


def _filled(doc: str) -> str:
    lines: list[str] = []
    for line in inspect.cleandoc(doc).splitlines():
        if line.startswith("%(") and line.endswith(")s"):
            name = line[2:-2]
            text = PARAMETERS.get(name) or ATTRIBUTES[name]
            lines += text.strip("\n").splitlines()
        else:
            lines.append(line)
    # Types may be broken over lines in the source; numpydoc wants them on one.
    return re.sub(r"\\\n\s*", "", "\n".join(lines))
