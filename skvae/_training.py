"""Training: the skorch net and its in-memory epoch.

This is the one module that knows skorch. `AutoencoderNet` is a skorch net, so its
callbacks, history and parameters mean what skorch's documentation says; only the
epoch is our own: batches are gathered from memory, gradients live in one flat
buffer, and nothing waits for the device within an epoch. As soon as a callback
asks for batches, skorch's own step runs instead, over the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
)
from skorch.dataset import unpack_data
from skorch.history import History
from torch import Tensor

from skvae._compat import warn
from skvae._course import Course
from skvae._net_params import checked, cloned, decay_of
from skvae._networks import FlatParameters
from skvae._optimizer import FlatAdamW
from skvae._plan import TrainingPlan
from skvae._random import torch_generator
from skvae._rows import RowBatches, RowDataset
from skvae._step import closed_step

_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_grad_computed")
_VALIDATION_BATCH = 2048


class _Ledger:
    """Losses of batches, read from the device once.

    They are stacked now and then: each by itself, between the large tensors of the
    steps, would keep the allocator from using freed memory again.
    """

    _TOGETHER = 64

    def __init__(self) -> None:
        self._open: list[Tensor] = []
        self._blocks: list[Tensor] = []
        self._width = 0

    def add(self, loss: Tensor, parts: list[Tensor]) -> None:
        """Note the loss of a batch and the means of its terms."""
        self._width = 1 + len(parts)
        self._open += [loss.detach(), *(p.detach() for p in parts)]
        if len(self._open) >= self._TOGETHER * self._width:
            self._close()

    def _close(self) -> None:
        self._blocks.append(torch.stack(self._open))
        self._open = []

    def values(self) -> np.ndarray:
        """Return an array of shape (n_batches, 1 + n_terms)."""
        if self._open:
            self._close()
        flat = torch.cat(self._blocks).double().cpu().numpy()
        return flat.reshape(-1, self._width)


class AutoencoderNet(NeuralNet):
    """A skorch net that trains an autoencoder module on rows held in memory.

    Parameters
    ----------
    module : AutoencoderModule
        The module; it is trained in place.
    criterion : Objective
        The weighted sum of terms.
    plan : TrainingPlan
        How long and how to train.
    shuffle_generator : torch.Generator
        Draws the permutations of the rows.
    **kwargs : dict
        Anything else a skorch net takes.
    """

    def __init__(
        self,
        module: Any,
        criterion: Any,
        *,
        plan: Any = None,
        shuffle_generator: Any = None,
        optimizer: Any = FlatAdamW,
        **kwargs: Any,
    ):
        kwargs.setdefault("iterator_train", RowBatches)
        kwargs.setdefault("iterator_valid", RowBatches)
        kwargs.setdefault("train_split", None)
        kwargs.setdefault("verbose", 0)
        super().__init__(module, criterion, optimizer=optimizer, **kwargs)
        self.plan = plan
        self.shuffle_generator = shuffle_generator
        self.flat_: Any = None
        self.steps_done_ = 0
        self.lr_factor_ = 1.0
        self.schedules_itself_ = True
        self.clips_itself_ = True
        self.parts_: list[list[Any]] = []

    # -- skorch's extension points -----------------------------------------------------
    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return [("print_log", PrintLog())] if self.verbose else []

    def initialize_optimizer(self, triggered_directly: Any = None) -> AutoencoderNet:
        """Make the optimiser over the flat buffers, fused where it is AdamW."""
        flat = FlatParameters(self.module_)
        self.flat_ = flat
        args, kwargs = self.get_params_for_optimizer("optimizer", [("all", flat.all)])
        if self.optimizer is FlatAdamW:
            decay = kwargs.pop("weight_decay", self.plan.weight_decay)
            # Biases and scales do not decay; without decay one buffer serves all.
            split = [(flat.weights, decay), (flat.others, 0.0)]
            groups = [
                {"params": [p], "weight_decay": d}
                for p, d in (split if decay else [(flat.all, 0.0)])
                if p.numel()
            ]
            args = (groups,)
        self.optimizer_ = self.optimizer(*args, **kwargs)
        return self

    def _zero_grad_optimizer(self, set_to_none: bool | None = None) -> None:
        self.flat_.bind()
        self.flat_.zero_grad()

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return the batches of a dataset, shuffled for training."""
        own = self.iterator_train if training else self.iterator_valid
        if own is not RowBatches:
            return super().get_iterator(dataset, training=training)
        if not isinstance(getattr(dataset, "dataset", dataset), RowDataset):
            raise TypeError(
                "net_ works on rows that its estimator has scaled. Use transform, "
                "reconstruct, score_samples or fit of the estimator, or net_.module_."
            )
        if training:
            return RowBatches(
                dataset, self.batch_size, True, generator=self.shuffle_generator
            )
        return RowBatches(dataset, _VALIDATION_BATCH)

    def get_loss(
        self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False
    ) -> Tensor:
        """Return the objective of a forward pass, in nats per row."""
        loss, parts = self.criterion_(self.module_, y_pred)
        self.parts_.append(parts)
        return loss

    def evaluation_step(self, batch: Any, training: bool = False) -> tuple:
        """Return reconstruction and code of a batch."""
        self.check_is_fitted()
        rows, _ = unpack_data(batch)
        with torch.set_grad_enabled(training):
            self._set_training(training)
            out = self.infer(rows)
        return self.module_.likelihood.mean(out.raw), out.mean

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take skorch's own training step at the step size of the plan.

        skorch cannot copy a named tuple: callbacks get raw outputs and codes.
        """
        self._set_pace()
        step = super().train_step(batch, **fit_params)
        self._keep_frozen()
        self.steps_done_ += 1
        out = step["y_pred"]
        return {**step, "y_pred": (out.raw, out.mean)}

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take skorch's own validation step; callbacks get what predicting gives."""
        with self._held_out_noise():
            step = super().validation_step(batch, **fit_params)
        out = step["y_pred"]
        return {**step, "y_pred": (self.module_.likelihood.mean(out.raw), out.mean)}

    @property
    def place(self) -> torch.device:
        """Device of the module; an accelerator chooses it, and `device` is None."""
        return next(self.module_.parameters()).device

    @contextmanager
    def _held_out_noise(self) -> Iterator[None]:
        """Let a denoising model corrupt held-out rows, alike at every call."""
        module = self.module_
        seed = getattr(module, "held_out_seed", None)
        if seed is not None:
            module.held_out_noise = torch_generator(seed, self.place)
        try:
            yield
        finally:
            module.held_out_noise = None

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        """Clip the gradient of skorch's own step."""
        self._clip()

    # -- the course of a fit -----------------------------------------------------------
    def train(self, train: Any, valid: Any, stop: Any = None) -> AutoencoderNet:
        """Train for the epochs of the plan; see `fit` of the estimators.

        Parameters
        ----------
        train, valid : RowDataset, Subset of one, or None
            Training and held-out rows.
        stop : callable or None
            Called after each epoch; a true result ends the training.
        """
        if not self.initialized_:
            self.initialize()
        self._read_callbacks()
        course = Course(self, train, valid)
        self.notify("on_train_begin", X=train, y=None)
        try:
            while not course.finished():
                course.epoch()
                if stop is not None and stop():
                    break
        except KeyboardInterrupt:
            if course.epochs == 0:
                raise
            course.drop_unfinished()
            warn("Training interrupted by user.")
        finally:
            self.module_.eval()
            self.flat_.unbind()
        course.keep_best()
        self.notify("on_train_end", X=train, y=None)
        return self

    # -- the stored form ---------------------------------------------------------------
    def get_plain_state(self) -> dict[str, Any]:
        """Return weights, history and what partial_fit needs, as plain values."""
        generators = {"shuffle": self.shuffle_generator}
        noise = getattr(self.module_, "noise", None)
        if noise is not None:
            generators["noise"] = noise
        state: dict[str, Any] = {
            "weights": {k: _array(v) for k, v in self.module_.state_dict().items()},
            "device": str(self.place),
            "plan": asdict(self.plan),
            "history": history_rows(self),
            "generators": {
                name: _array(g.get_state()) for name, g in generators.items() if g
            },
        }
        if self.plan.schedule == "constant":
            state["optimizer"] = _plain_optimizer(self)
        if getattr(self.module_, "frozen_noise", None) is not None:
            state["frozen_noise"] = _array(self.module_.frozen_noise)
        return state

    def load_plain_state(self, state: dict[str, Any]) -> None:
        """Take what `get_plain_state` returned, apart from the weights."""
        restore_history(self, state["history"])
        for name, value in state["generators"].items():
            saved = torch.as_tensor(np.array(value, dtype=np.uint8))
            if name == "shuffle":
                self.shuffle_generator.set_state(saved)
                continue
            kind = "cpu" if len(saved) > 100 else self.place
            if torch.device(kind).type == self.place.type:
                self.module_.noise = torch.Generator(device=kind)
                self.module_.noise.set_state(saved)
        if "optimizer" in state:
            _load_optimizer(self, state["optimizer"])
        if "frozen_noise" in state:
            frozen = torch.as_tensor(np.array(state["frozen_noise"]))
            self.module_.frozen_noise = frozen.to(self.place)
        self.module_.eval()

    def take_over(self, earlier: AutoencoderNet) -> None:
        """Go on with the optimiser and shuffling of an earlier net of this module."""
        # The moments of a whole fit are not stored with it, so nothing may need them.
        if earlier.plan.schedule == "constant":
            _load_optimizer(self, _plain_optimizer(earlier))
        self.shuffle_generator.set_state(earlier.shuffle_generator.get_state())

    def _read_callbacks(self) -> None:
        callbacks = [cb for _, cb in self.callbacks_]

        def lacks(kind: type[Callback]) -> bool:
            return not any(isinstance(cb, kind) for cb in callbacks)

        self.schedules_itself_ = lacks(LRScheduler)
        self.clips_itself_ = lacks(GradientNormClipping)

    @property
    def by_batch(self) -> bool:
        """Whether something asks for single batches, so that skorch's step runs."""
        if self.optimizer is not FlatAdamW or hasattr(self, "accelerator"):
            return True
        if {self.iterator_train, self.iterator_valid} != {RowBatches}:
            return True
        return any(
            isinstance(cb, PassthroughScoring)  # It reads the batches of the history.
            or getattr(type(cb), hook) is not getattr(Callback, hook)
            for _, cb in self.callbacks_
            for hook in _BATCH_HOOKS
        )

    def _set_pace(self) -> float:
        """Set step size and progress for the next step."""
        plan, total = self.plan, self.total_steps_
        progress = min(self.steps_done_ / total, 1.0) if total else 1.0
        self.criterion_.progress = progress
        rate = plan.rate(progress) * self.lr_factor_
        if self.schedules_itself_:
            for group in self.optimizer_.param_groups:
                group["lr"] = rate
        return rate

    def _clip(self) -> None:
        scale = self._clip_scale()
        if scale is not None:
            self.flat_.grad.div_(scale.to(self.flat_.grad))

    def _clip_scale(self) -> Tensor | None:
        """Return what the gradient must be divided by, 1 if it is short enough."""
        if not self.clips_itself_ or math.isinf(self.plan.clip):
            return None
        norm = torch.linalg.vector_norm(self.flat_.grad)
        # No `if`: comparing on the host would wait for the device.
        return norm.float().div_(self.plan.clip).clamp_(min=1.0)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **params: Any
    ) -> None:
        """Run one epoch, lean unless something asks for batches."""
        if iterator is None:
            return
        self.parts_ = []
        self.kept_ = [
            (p, p.detach().clone())
            for p in self.module_.parameters()
            if training and not p.requires_grad
        ]
        if self.by_batch:
            super().run_single_epoch(iterator, training, prefix, step_fn, **params)
            rows = self.history[
                -1, "batches", :, (f"{prefix}_loss", f"{prefix}_batch_size")
            ]
            losses, sizes = np.array(rows, dtype=float).T
            loss = float(np.average(losses, weights=sizes))
        elif training:
            loss = self._lean_epoch(iterator)
            # One row stands for the batches: Checkpoint names its files by the last.
            self.history.new_batch()
            self.history.record_batch("train_loss", loss)
        else:
            loss = self.held_out_loss(iterator)
        self._record(prefix, loss)

    def _keep_frozen(self) -> None:
        """Put frozen parameters back: a step moves all of one flat tensor."""
        with torch.no_grad():
            for parameter, value in self.kept_:
                parameter.copy_(value)

    def _lean_epoch(self, iterator: RowBatches) -> float:
        module, objective, flat = self.module_, self.criterion_, self.flat_
        module.train()
        flat.bind()
        ledger, sizes = _Ledger(), []
        closed = closed_step(module, objective)
        for batch in iterator.batches():
            self._set_pace()
            if closed is not None and batch.keys() <= {"x", "condition"}:
                loss, parts = closed(**batch)
            else:
                flat.zero_grad()
                loss, parts = objective(module, module(**batch))
                loss.backward()
            self.optimizer_.quick_step(self._clip_scale())
            self._keep_frozen()
            self.steps_done_ += 1
            ledger.add(loss, parts)
            sizes.append(len(batch["x"]))
        values = ledger.values()
        self.parts_ = values[:, 1:].tolist()
        return float(np.average(values[:, 0], weights=sizes))

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Compute losses of held-out rows as at the end of the training."""
        objective = self.criterion_
        self.module_.eval()
        progress, objective.progress = objective.progress, 1.0
        try:
            with torch.inference_mode(), self._held_out_noise():
                yield
        finally:
            objective.progress = progress

    def held_out_loss(self, batches: Iterable[dict[str, Tensor]]) -> float:
        module, objective = self.module_, self.criterion_
        ledger, sizes = _Ledger(), []
        with self._judging():
            for batch in batches:
                ledger.add(*objective(module, module(**batch)))
                sizes.append(len(batch["x"]))
        values = ledger.values()
        self.parts_ = values[:, 1:].tolist()
        return float(np.average(values[:, 0], weights=sizes))

    def held_out_error(self, batches: Iterable[dict[str, Tensor]]) -> float:
        """Return the standard error of the held-out loss."""
        module, objective = self.module_, self.criterion_
        with self._judging():
            losses = [objective.row_losses(module, module(**b)) for b in batches]
        rows = torch.cat(losses)
        return float(rows.std() / math.sqrt(max(len(rows), 1)))

    def _record(self, prefix: str, loss: float) -> None:
        key = f"{prefix}_loss"
        earlier = [row[key] for row in self.history[:-1] if key in row]
        self.history.record(key, loss)
        self.history.record(key + "_best", not earlier or loss < min(earlier))
        if self.parts_:
            means = torch.tensor(
                [[float(p) for p in parts] for parts in self.parts_]
            ).mean(dim=0)
            for name, mean in zip(self.criterion_.names, means.tolist(), strict=True):
                self.history.record(f"{prefix}_{name}", mean)
        self.parts_ = []


def make_net(
    module: Any,
    objective: Any,
    plan: TrainingPlan,
    *,
    device: Any,
    shuffle_generator: torch.Generator,
    callbacks: Any = None,
    net_params: dict[str, Any] | None = None,
    verbose: int = 0,
) -> AutoencoderNet:
    """Make the net of an estimator; users' callbacks are cloned, never mutated."""
    extra = checked(net_params)
    kind: type[AutoencoderNet] = AutoencoderNet
    if "accelerator" in extra:
        from skorch.hf import AccelerateMixin

        kind = type("AcceleratedNet", (AccelerateMixin, AutoencoderNet), {})
        device = None  # The accelerator places the module and the rows.
    own = [cloned(cb) for cb in callbacks or ()]
    own += [cloned(cb) for cb in extra.pop("callbacks", None) or ()]
    settings: dict[str, Any] = {
        "lr": plan.learning_rate,
        "max_epochs": plan.max_iter,
        "batch_size": plan.batch_size,
        "device": None if device is None else str(device),
        "verbose": verbose,
        **decay_of(plan.weight_decay, extra),
    }
    net = kind(
        module,
        objective,
        plan=plan,
        shuffle_generator=shuffle_generator,
        callbacks=own or None,
        **{**settings, **extra},
    )
    return net.initialize()


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _plain_optimizer(net: AutoencoderNet) -> dict[str, Any]:
    """Return the kind of a net's optimiser, and size and moments of its parameters."""
    optimizer = net.optimizer_
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    states = [optimizer.state.get(p, {}) for p in parameters]
    return {
        "kind": _kind(net),
        "sizes": [p.numel() for p in parameters],
        "states": [
            {k: _array(v) if isinstance(v, Tensor) else v for k, v in s.items()}
            for s in states
        ],
    }


def _load_optimizer(net: AutoencoderNet, stored: dict[str, Any]) -> None:
    """Give a net's optimiser stored moments; it begins anew where they are no use."""
    parameters = [p for g in net.optimizer_.param_groups for p in g["params"]]
    sizes, states = [p.numel() for p in parameters], stored["states"]
    if stored["kind"] != _kind(net) or sum(stored["sizes"]) != sum(sizes):
        return
    if stored["sizes"] != sizes:
        # Weight decay parts the buffer in two, in order: moments are of all of it.
        states = _cut(_joined(states, stored["sizes"]), sizes)
    for p, state in zip(parameters, states, strict=True):
        if state:
            net.optimizer_.state[p] = {
                k: torch.as_tensor(np.array(v)).to(p.device) for k, v in state.items()
            }


def _kind(net: AutoencoderNet) -> str:
    kind = net.optimizer
    return f"{kind.__module__}.{kind.__qualname__}"


def _joined(states: list[dict[str, Any]], sizes: list[int]) -> dict[str, Any]:
    """Return the moments of several parameters as those of one; counts are alike."""
    first = states[0]
    return {
        k: np.concatenate([s[k] for s in states]) if np.shape(v) == (sizes[0],) else v
        for k, v in first.items()
    }


def _cut(state: dict[str, Any], sizes: list[int]) -> list[dict[str, Any]]:
    """Return the moments of one parameter as those of several."""
    total, ends = sum(sizes), np.cumsum(sizes)
    return [
        {
            k: v[end - size : end] if np.shape(v) == (total,) else v
            for k, v in state.items()
        }
        for size, end in zip(sizes, ends, strict=True)
    ]


def history_rows(net: AutoencoderNet) -> list[dict[str, Any]]:
    """Return the history of a net as plain rows, one an epoch, without batches."""
    return [{k: v for k, v in row.items() if k != "batches"} for row in net.history]


def restore_history(net: AutoencoderNet, rows: list[dict[str, Any]]) -> None:
    """Give a rebuilt net its history back."""
    net.history_ = History([{**row, "batches": []} for row in rows])


def subset(dataset: RowDataset, index: Any) -> Any:
    """Return part of a dataset, sharing its memory."""
    return torch.utils.data.Subset(dataset, index)
