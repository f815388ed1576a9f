"""The course of one fit: epochs, the best weights, when to stop, when to go back."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning

from skvae._compat import warn
from skvae._rows import RowBatches

# Optimiser steps between two validations: a held-out pass then costs a few percent.
_STEPS_PER_VALIDATION = 10


class Course:
    """The epochs of one fit: what is best so far, when to stop, when to roll back."""

    def __init__(self, net: Any, train: Any, valid: Any):
        self.net = net
        self.train = train
        self.valid = valid
        self.train_batches = net.get_iterator(train, training=True)
        self.valid_batches: Any = None
        self.epochs = 0
        self.since_best = self.last_better = 0
        self.rolled_back = 0
        self.stopped = False
        steps = max(len(self.train_batches), 1)
        net.total_steps_ = steps * net.plan.max_iter
        net.steps_done_ = 0
        net.lr_factor_ = 1.0
        # Patience must see several validations before it ends a training.
        rarest = max(1, net.plan.patience // 5)
        self.interval = min(max(1, _STEPS_PER_VALIDATION // steps), rarest)
        # A user's callback may count epochs by their held-out loss; what is kept and
        # when training stops is decided as without it.
        self.watched = any(name != "print_log" for name, _ in net.callbacks_)
        self.best_loss = math.inf
        self.best = self._snapshot()
        if valid is not None:
            own = net.iterator_valid is RowBatches
            iterator = net.get_iterator(valid, training=False)
            # Held-out rows are few: gather and scale them once.
            self.valid_batches = list(iterator.batches()) if own else iterator
            if own:
                self.best_loss = net.held_out_loss(self.valid_batches)
                net.parts_ = []
        self.last_valid = net.start_loss_ = self.kept_loss = self.best_loss
        self.slack = 0.0
        if net.plan.standard_errors and math.isfinite(self.best_loss):
            error = net.held_out_error(self.valid_batches)
            self.slack = net.plan.standard_errors * error

    def _snapshot(self, epoch: int = 0) -> dict[str, Any]:
        flat, module = self.net.flat_, self.net.module_
        buffers = {name: b.clone() for name, b in module.named_buffers()}
        return {"flat": flat.snapshot(), "buffers": buffers, "epoch": epoch}

    def _restore(self, snapshot: dict[str, Any]) -> None:
        self.net.flat_.restore(snapshot["flat"])
        for name, buffer in self.net.module_.named_buffers():
            buffer.copy_(snapshot["buffers"][name])

    def finished(self) -> bool:
        """Tell whether the budget or the patience is spent."""
        plan = self.net.plan
        if self.stopped or self.epochs >= plan.max_iter:
            return True
        return self.valid is not None and self.since_best >= plan.patience

    def epoch(self) -> None:
        """Run one epoch, validation and callbacks included."""
        net, started = self.net, time.perf_counter()
        datasets = {"dataset_train": self.train, "dataset_valid": self.valid}
        net.notify("on_epoch_begin", **datasets)
        net.run_single_epoch(self.train_batches, True, "train", net.train_step)
        if self._diverged():
            self._roll_back()
        else:
            self._validate()
        net.history.record("dur", time.perf_counter() - started)
        self.epochs += 1
        try:
            net.notify("on_epoch_end", **datasets)
        except KeyboardInterrupt:
            # How skorch's own EarlyStopping ends a training.
            self.stopped = True

    def _validate(self) -> None:
        net = self.net
        if self.valid is None:
            self.best = self._snapshot(self.epochs + 1)
            return
        last = self.epochs + 1 >= net.plan.max_iter
        due = (self.epochs + 1) % self.interval == 0 or last
        if due or self.watched or net.by_batch:
            batches = self.valid_batches
            if net.by_batch:
                batches = net.get_iterator(self.valid, training=False)
            net.run_single_epoch(batches, False, "valid", net.validation_step)
            self.last_valid = net.history[-1, "valid_loss"]
        else:
            net.history.record("valid_loss", self.last_valid)
            net.history.record("valid_loss_best", False)
        if due:
            self._decide()

    def _decide(self) -> None:
        """Keep weights that are as good as the best, and count epochs since."""
        net = self.net
        done = self.epochs + 1
        if self.last_valid < self.best_loss:
            self.last_better = done
        self.best_loss = min(self.best_loss, self.last_valid)
        as_good = self.last_valid == self.best_loss
        # Of weights that chance cannot tell apart the last are kept.
        if self.slack and self.last_valid <= self.best_loss + self.slack:
            as_good |= self.last_valid <= net.start_loss_
        if as_good:
            self.kept_loss, self.best = self.last_valid, self._snapshot(done)
            if self.slack:
                self.last_better = done
        self.since_best = done - self.last_better

    def _diverged(self) -> bool:
        loss = self.net.history[-1, "train_loss"]
        # The norm overflows before the weights do, while their products already have.
        size = float(torch.linalg.vector_norm(self.net.flat_.data))
        return not (math.isfinite(loss) and math.isfinite(size))

    def _roll_back(self) -> None:
        net, epoch = self.net, self.epochs + 1
        bad = [
            name
            for name in net.criterion_.names
            if not math.isfinite(net.history[-1].get(f"train_{name}", 0.0))
        ]
        culprit = f"term {bad[0]!r}" if bad else "gradient"
        self._restore(self.best)
        # A constant step is that of partial_fit: one epoch, and none to go back for.
        if self.rolled_back or net.plan.schedule == "constant":
            again = ", again after a restart with a smaller step"
            raise ValueError(
                "Solver produced non-finite parameter weights: the "
                f"{culprit} of the loss was not finite in epoch {epoch}"
                f"{again if self.rolled_back else ''}. The input data may contain "
                "large values and need to be preprocessed, or learning_rate_init="
                f"{net.plan.learning_rate} is too large."
            )
        self.rolled_back += 1
        net.lr_factor_ *= 0.1
        net.initialize_optimizer()
        warn(
            f"The loss was not finite in epoch {epoch} ({culprit}). Training went "
            "back to the best weights so far with a ten times smaller step. Lower "
            "learning_rate_init to avoid this.",
            ConvergenceWarning,
        )
        if self.valid is not None:
            net.history.record("valid_loss", self.last_valid)
            net.history.record("valid_loss_best", False)

    def drop_unfinished(self) -> None:
        """Forget the row of history of an epoch that did not finish."""
        history = self.net.history
        if history and "dur" not in history[-1]:
            del history[-1]

    def keep_best(self) -> None:
        """Leave the weights kept in the module."""
        if self.valid is not None:
            self._restore(self.best)
        self.net.best_epoch_ = self.best["epoch"]
        self.net.best_loss_ = self.kept_loss
