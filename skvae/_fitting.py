"""One fit, step by step: resolve "auto", split, build, start, train, finish."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from skvae._build import Architecture, build_module, corruption_of, resolved_terms
from skvae._defaults import (
    SMALL,
    code_width,
    input_noise,
    noise_family,
    prior_components,
    prior_family,
    table_components,
    training_plan,
)
from skvae._devices import device_of
from skvae._factories import lent_default_generator
from skvae._inference import FoldedEncoder
from skvae._layerwise import check_stackable, start_layerwise
from skvae._learned_prior import (
    MAX_CODES,
    condition_of,
    conditional_normals,
    drawn_codes,
    labels_of,
    prior_is_learned,
    refit_prior,
    start_prior,
)
from skvae._networks import LinearPlusMLP, TiedDecoder
from skvae._plan import TrainingPlan
from skvae._random import draw_seeds, torch_generator
from skvae._rows import NumericColumns, RowDataset, column_ranges
from skvae._starts import (
    sample_of_rows,
    start_at_factor_analysis,
    start_at_means,
    start_at_pca,
)
from skvae._table import Container
from skvae._table_fitting import (
    hidden_cells,
    start_table,
    table_architecture,
    table_columns,
)
from skvae._table_model import match_margins
from skvae._threads import limited_threads
from skvae._training import (
    history_rows,
    make_net,
    subset,
)
from skvae._warm_start import check_same_network, network_parameters
from skvae.corruptions import CORRUPTIONS
from skvae.objectives import KLDivergence, Objective
from skvae.priors import MixturePrior, VampPrior

_MAX_HELD_OUT = 10_000
_FROZEN_DRAWS = 512
# Draws of each row that the prior of a table is fitted to.
_DRAWS = 4
_ROWS_FOR_MEANS = 2000
_NAME = {torch.float32: "float32", torch.float64: "float64"}


class _ColumnNoise:
    """Adds normal noise with a standard deviation for each column."""

    def __init__(self, sd: torch.Tensor):
        self.sd = sd

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.empty_like(x).normal_(generator=generator)
        return torch.addcmul(x, noise, self.sd)


class Fitting:
    """The steps of one `fit` or `partial_fit` of an estimator.

    Parameters
    ----------
    estimator : BaseAutoencoder
        The estimator, changed in place.
    X, y : array-like
        What the user passed.
    go_on : bool
        Whether to go on from fitted weights.
    partial : bool, default=False
        Whether to train for one epoch at a constant step size.
    classes : array-like or None, default=None
        All classes of a conditional model, where the user names them.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        go_on: bool,
        partial: bool = False,
        classes: Any = None,
    ):
        self.estimator = estimator
        self.user_X = X
        self.y = y
        self.go_on = go_on
        self.partial = partial
        self.classes = classes

    def run(self) -> None:
        """Fit the estimator."""
        est = self.estimator
        self.recipe = est._recipe()
        self._check_parameters()
        if self.go_on:
            check_same_network(est)
        else:
            self._forget_earlier_fit()
        self._check_free_bits()
        self.seeds = draw_seeds(est.random_state)
        container = Container.of(self.user_X)
        X = est._validate(self.user_X, reset=not self.go_on)
        accelerator = (est.net_params or {}).get("accelerator")
        self.device = device_of(
            est.device if accelerator is None else accelerator.device
        )
        context = est._init_callback_context(max_subtasks=None)
        context.call_on_fit_task_begin(estimator=est, X=self.user_X, y=self._hook_y)
        if not self.go_on:
            est._container = container
            est._columns = self._fit_columns(X)
        columns = est._columns
        if self.go_on:
            est._refuse_missing(X)
        est._refuse_beyond_support(X)
        self.dtype = self._dtype(X)
        arrays = columns.to_rows(X, _NAME[self.dtype])
        extra = est._condition_arrays(
            self.y,
            arrays,
            go_on=self.go_on,
            partial=self.partial,
            classes=self.classes,
        )
        arrays |= {name: a.astype(_NAME[self.dtype]) for name, a in extra.items()}
        with limited_threads(self._multiply_adds()), self._own_randomness():
            dataset = RowDataset(columns, arrays, self.dtype, self.device)
            train, valid = self._split(len(dataset))
            if not self.go_on:
                self._build(dataset, train)
            self._train(dataset, train, valid, context)
            with torch.inference_mode():
                est._finish(dataset)
        est._folded = FoldedEncoder.of(est._module, columns)
        context.call_on_fit_task_end(
            estimator=est,
            X=self.user_X,
            y=self._hook_y,
            reconstruction_attributes=dict,
        )

    def _forget_earlier_fit(self) -> None:
        """Drop what an earlier fit found: models of other rows may not have it."""
        est = self.estimator
        for name in list(vars(est)):
            if name.endswith("_") and not name.startswith("_"):
                delattr(est, name)

    @property
    def _own_networks(self) -> list[str]:
        """Names of the networks that are the user's."""
        names = ("encoder", "decoder")
        return [name for name in names if getattr(self.estimator, name) is not None]

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Let own networks draw (dropout) from a generator that the seed decides."""
        seed = torch_generator(self.seeds.shuffle) if self._own_networks else None
        with lent_default_generator(seed):
            yield

    @property
    def _hook_y(self) -> Any:
        # scikit-learn's ScoringMonitor logs nothing where y is None.
        return self.user_X if self.y is None else self.y

    def _dtype(self, X: Any) -> torch.dtype:
        """Compute in the type of the data; codes have none, and MPS no float64."""
        if self.go_on:
            return next(self.estimator._module.parameters()).dtype
        if self.estimator.likelihood_ == "table" or self.device.type == "mps":
            return torch.float32
        return torch.float64 if X.dtype == np.float64 else torch.float32

    # -- resolving "auto" --------------------------------------------------------------
    def _check_level(self) -> None:
        kind, level = self.recipe.corruption, self.recipe.corruption_level
        if not isinstance(kind, str) or isinstance(level, str):
            return
        if level > CORRUPTIONS[kind].max_level:
            raise ValueError(
                f"corruption_level must be in [0, 1] with corruption={kind!r}. "
                f"Got {level!r}."
            )

    def _check_parameters(self) -> None:
        self._check_level()
        hidden = self.estimator.hidden_layer_sizes
        if isinstance(hidden, str):
            self.hidden: tuple[int, ...] = ()
            return
        hidden = list(hidden)
        if not all(
            isinstance(h, Real) and float(h).is_integer() and float(h) > 0
            for h in hidden
        ):
            raise ValueError(
                "hidden_layer_sizes must be > 0, got "
                f"{self.estimator.hidden_layer_sizes}. Give an integer for each layer."
            )
        self.hidden = tuple(int(h) for h in hidden)

    def _check_free_bits(self) -> None:
        """Refuse free bits where the divergence is drawn, which has no components."""
        terms = (t for t in self.recipe.terms if isinstance(t, KLDivergence))
        bits = max((t.free_bits for t in terms), default=0.0)
        arch = self.estimator._architecture if self.go_on else self.recipe
        if bits > 0 and arch.prior in ("mixture", "vamp"):
            raise ValueError(
                f"free_bits={bits} needs prior='normal': only its divergence has "
                f"components. The model has prior={arch.prior!r}. Use free_bits=0, or "
                "fit anew with prior='normal'."
            )
        if bits > 0 and arch.n_importance_samples > 1:
            raise ValueError(
                f"free_bits={bits} needs n_importance_samples=1: the bound of several "
                f"draws has no divergence. Got {arch.n_importance_samples}."
            )

    def _multiply_adds(self) -> float:
        """Return the work of a step; that of own networks is not known beforehand."""
        if self._own_networks:
            return math.inf
        widths = [self.estimator.n_features_in_, *self.hidden]
        return 2.0 * 128 * sum(a * b for a, b in pairwise(widths))

    def _fit_columns(self, X: Any) -> Any:
        est = self.estimator
        if est._is_table(X):
            est.likelihood_ = "table"
            self._resolve_hidden((256, 256))
            columns, self.heads = table_columns(est, X)
            return columns
        self._resolve_hidden((128, 64))
        missing = not sp.issparse(X) and bool(np.isnan(np.sum(X)))
        likelihood = self.recipe.likelihood
        if likelihood == "auto":
            binary = not missing and self.recipe.variational and _is_binary(X)
            likelihood = "bernoulli" if binary else "gaussian"
        est.likelihood_ = likelihood
        scale = est.scale if likelihood == "gaussian" else None
        return NumericColumns.fit(X, scale, has_missing=missing)

    def _resolve_hidden(self, default: tuple[int, ...]) -> None:
        if isinstance(self.estimator.hidden_layer_sizes, str):
            self.hidden = default

    def _split(self, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        est = self.estimator
        everything = np.arange(n)
        held_out = est.early_stopping and not self.partial and est.max_iter != 0
        if not held_out or n < SMALL:
            return everything, None
        size = max(10, min(math.ceil(est.validation_fraction * n), _MAX_HELD_OUT))
        if n - size < 2:
            raise ValueError(
                f"validation_fraction={est.validation_fraction} holds out {size} of "
                f"{n} rows and leaves {n - size} to train on; at least 2 are needed. "
                "Lower it, or use early_stopping=False."
            )
        order = np.random.RandomState(self.seeds.split).permutation(n)
        return np.sort(order[size:]), np.sort(order[:size])

    def _plan(self, n: int) -> TrainingPlan:
        est = self.estimator
        plan = training_plan(est, self.recipe, n, partial=self.partial)
        est.batch_size_, est.max_iter_ = plan.batch_size, plan.max_iter
        est.learning_rate_ = plan.learning_rate
        return plan

    # -- building ----------------------------------------------------------------------
    def _build(self, dataset: RowDataset, train: np.ndarray) -> None:
        est, recipe = self.estimator, self.recipe
        self._check_tied()
        table = None
        if est.likelihood_ == "table":
            table = table_architecture(est, recipe, self.heads, len(train))
        est.n_components_ = code_width(est, recipe, table.sizes if table else [])
        arch = Architecture(
            n_features=est.n_features_in_,
            n_components=est.n_components_,
            n_conditions=est._n_conditions,
            hidden_layer_sizes=self.hidden,
            activation=est.activation,
            dropout=float(est.dropout),
            linear_path=est.init == "auto",
            likelihood=est.likelihood_,
            noise=noise_family(
                est, recipe, len(train), unlabelled="label_prior" in dataset.arrays
            ),
            variational=recipe.variational,
            prior=prior_family(est, recipe),
            n_mixture=self._n_mixture(len(train)),
            code_activation=recipe.code_activation,
            tied=recipe.tied,
            has_mask=est._columns.has_missing,
            n_importance_samples=recipe.n_importance_samples,
            dtype=_NAME[self.dtype],
            table=table,
        )
        self.module = build_module(
            arch,
            torch_generator(self.seeds.init),
            encoder=est.encoder,
            decoder=est.decoder,
        )
        est._architecture = arch
        est._network_parameters = network_parameters(est)
        if est.init == "layerwise":
            check_stackable(self.module)
        self._start(dataset, train)

    def _check_tied(self) -> None:
        own = self._own_networks
        if self.recipe.tied and own:
            raise ValueError(
                f"tied_weights=True needs {own[0]}=None: the decoder is the transpose "
                "of the default encoder."
            )
        if self.recipe.tied and self.estimator.likelihood_ == "table":
            raise ValueError(
                "tied_weights=True needs numeric rows: a table is decoded into "
                "probabilities, which no encoder takes. Use tied_weights=False."
            )

    def _n_mixture(self, n: int) -> int:
        if self.estimator.likelihood_ == "table":
            return table_components(self.estimator, n)
        usual = prior_components(n)
        width = self.estimator._n_conditions
        return conditional_normals(n, width, usual) if width else usual

    def _start(self, dataset: RowDataset, train: np.ndarray) -> None:
        """Set the weights training begins with."""
        est, module = self.estimator, self.module
        rng = np.random.RandomState(self.seeds.init)
        rows = train[sample_of_rows(len(train), est.n_features_in_, rng)]
        if est.likelihood_ == "table":
            start_table(est, module, dataset.take(train), self.seeds.init)
            if isinstance(module.prior, VampPrior):
                self._start_prior(dataset.take(rows))
            return
        classical = (
            est.init == "auto"
            and isinstance(module.encoder, LinearPlusMLP)
            and isinstance(module.decoder, (LinearPlusMLP, TiedDecoder))
            and est.likelihood_ == "gaussian"
        )
        if not classical:
            rows = rows[:_ROWS_FOR_MEANS]
        batch = dataset.take(rows)
        X, condition = batch["x"].cpu().numpy(), condition_of(batch)
        if classical and self.recipe.variational:
            start_at_factor_analysis(module, X, self.seeds.init, condition)
        elif classical and self.recipe.code_activation is None:
            start_at_pca(module, X, self.seeds.init)
        else:
            start_at_means(module, X)
        if est.init == "layerwise":
            self._pretrain(dataset, train)
        if prior_is_learned(module):
            self._start_prior(batch)

    def _start_prior(self, batch: dict[str, Any]) -> None:
        module = self.module.to(self.device)
        inputs = module.encoder_input(**batch)
        start_prior(module, inputs, self.seeds.init, labels_of(batch))

    def _pretrain(self, dataset: RowDataset, train: np.ndarray) -> None:
        """Train the layers one by one, from inputs corrupted as in the fit."""
        module = self.module.to(self.device)
        module.corruption = self._corruption(dataset, train)
        generator = torch_generator(self.seeds.init, self.device)
        plan = self._plan(len(train))
        start_layerwise(module, dataset.take, train, plan, generator)

    def _corruption(self, dataset: RowDataset, train: np.ndarray) -> Any:
        est, level = self.estimator, self.recipe.corruption_level
        if level == "auto":
            level = input_noise(est, self.recipe, len(train))
        if self.recipe.corruption == "gaussian":
            est.input_noise_ = float(level)
            normal = est.likelihood_ == "gaussian"
            if self.recipe.variational and level and normal:
                return self._column_noise(level)
        low, high = est._columns.low, est._columns.high
        if est.likelihood_ == "table":
            hides = hidden_cells(self.recipe, level)
            sizes = est._columns.codec.sizes
            return hides or corruption_of(self.recipe.corruption, level, n_codes=sizes)
        if self.recipe.corruption == "salt_and_pepper" and low is None:
            low, high = column_ranges(dataset, train)
        return corruption_of(self.recipe.corruption, level, low, high)

    def _column_noise(self, level: float) -> Any:
        """Return noise no larger than what the start finds in each column.

        Columns that others determine nearly exactly must stay nearly exact.
        """
        module = self.estimator.net_.module_ if self.go_on else self.module
        variance = module.likelihood.noise_variance().detach()
        sd = variance.expand(self.estimator.n_features_in_).sqrt().clamp(max=level)
        return _ColumnNoise(sd.to(self.device))

    # -- training ----------------------------------------------------------------------
    def _train(
        self,
        dataset: RowDataset,
        train: np.ndarray,
        valid: np.ndarray | None,
        context: Any,
    ) -> None:
        est = self.estimator
        # A copy, so that a fit that fails leaves the earlier weights alone.
        module = copy.deepcopy(est.net_.module_) if self.go_on else self.module
        plan = self._plan(len(train))
        self._set_randomness(module, dataset, train)
        est.evaluation_seed_ = self.seeds.evaluation
        # Before the first epoch, after which callbacks may score.
        est._learn_rows(dataset, partial=self.partial, go_on=self.go_on)
        est.device_ = str(self.device)
        net = self._net(module, plan)
        earlier = history_rows(est.net_) if self.go_on else []
        train_rows = dataset if valid is None else subset(dataset, train)
        valid_rows = None if valid is None else subset(dataset, valid)
        # Set before the first epoch, so that an interrupted fit stays usable.
        est.net_, est._folded = net, None
        net.train(train_rows, valid_rows, stop=self._epoch_hook(net, context))
        if plan.max_iter and not self.partial and self.recipe.variational:
            if valid is not None and isinstance(module.prior, MixturePrior):
                self._refit_prior(net.module_, dataset, train, valid)
            if est.likelihood_ == "table":
                self._match_margins(net.module_, dataset, train)
        self._record(net, earlier)

    def _set_randomness(
        self, module: Any, dataset: RowDataset, train: np.ndarray
    ) -> None:
        """Give a module its corruption, and the generators and draws of its noise."""
        module.corruption = self._corruption(dataset, train)
        if self.recipe.corrupts_held_out:
            module.held_out_seed = self.seeds.evaluation
        module.noise = self._noise_generator()
        for part in module.modules():
            if isinstance(part, LinearPlusMLP):
                part.dropout_generator = module.noise
        if self.recipe.variational:
            shape = _FROZEN_DRAWS, self.estimator.n_components_
            frozen = torch.empty(shape, dtype=self.dtype)
            frozen.normal_(generator=torch_generator(self.seeds.evaluation))
            module.frozen_noise = frozen.to(self.device)

    def _refit_prior(
        self, module: Any, dataset: RowDataset, train: np.ndarray, valid: np.ndarray
    ) -> None:
        """Let a learned mixture catch up with the codes it ended beside."""
        generator = torch_generator(self.seeds.init, self.device)
        some, again = self._some(train), self.estimator.likelihood_ == "table"
        if again:
            some = np.tile(some, min(_DRAWS, MAX_CODES // len(some)))
        fit = drawn_codes(module, dataset, some, generator)
        check = drawn_codes(module, dataset, valid, generator)
        refit_prior(module, fit, check, self.seeds.init, again=again)

    def _match_margins(
        self, module: Any, dataset: RowDataset, train: np.ndarray
    ) -> None:
        condition = condition_of(dataset.take(self._some(train)))
        frequencies = self.estimator._columns.codec.code_frequencies
        generator = torch_generator(self.seeds.init, self.device)
        match_margins(module, frequencies, generator, condition)

    def _some(self, rows: np.ndarray) -> np.ndarray:
        """Return at most as many rows as a mixture is fitted to."""
        if len(rows) <= MAX_CODES:
            return rows
        rng = np.random.RandomState(self.seeds.init)
        return np.sort(rng.choice(rows, MAX_CODES, replace=False))

    def _noise_generator(self) -> torch.Generator:
        """Make the generator of the noise; partial_fit goes on with the earlier one."""
        generator = torch_generator(self.seeds.noise, self.device)
        if self.go_on and self.partial:
            earlier = getattr(self.estimator.net_.module_, "noise", None)
            if earlier is not None and earlier.device.type == self.device.type:
                generator.set_state(earlier.get_state())
        return generator

    def _net(self, module: Any, plan: TrainingPlan) -> Any:
        est = self.estimator
        net = make_net(
            module.to(self.device),
            Objective(resolved_terms(self.recipe, est._architecture.table)),
            plan,
            device=self.device,
            shuffle_generator=torch_generator(self.seeds.shuffle),
            callbacks=est.callbacks,
            net_params=est.net_params,
            verbose=est.verbose,
        )
        if self.go_on and self.partial:
            net.take_over(est.net_)
        return net

    def _record(self, net: Any, earlier: list[dict[str, Any]]) -> None:
        est = self.estimator
        if earlier:
            net.history_[:0] = [{**row, "batches": []} for row in earlier]
        rows = history_rows(net)
        est.n_iter_ = len(rows)
        est.loss_curve_ = [row["train_loss"] for row in rows]
        curve = [row["valid_loss"] for row in rows if "valid_loss" in row]
        est.validation_loss_curve_ = curve or None
        est.best_loss_ = net.best_loss_ if math.isfinite(net.best_loss_) else None
        held_out = math.isfinite(net.start_loss_)
        est.baseline_loss_ = net.start_loss_ if held_out else None

    # -- scikit-learn's callbacks ------------------------------------------------------
    def _epoch_hook(self, net: Any, context: Any) -> Any:
        est = self.estimator
        if not getattr(est, "_skl_callbacks", None):
            return None

        def hook() -> bool:
            task = context.subcontext(task_name="epoch")
            shared = {"estimator": est, "X": self.user_X, "y": self._hook_y}
            task.call_on_fit_task_begin(**shared)

            def attributes() -> dict[str, Any]:
                net.module_.eval()
                return {"net_": net}

            return bool(
                task.call_on_fit_task_end(
                    **shared, reconstruction_attributes=attributes
                )
            )

        return hook


def _is_binary(X: Any) -> bool:
    values = X.data if sp.issparse(X) else X
    return bool(np.all((values == 0) | (values == 1)))
