"""Corruptions: what a denoising autoencoder learns to undo.

A corruption maps rows to new rows; the rows it is given are never changed. The same
objects work on matrices of codes (integer tensors) where that makes sense.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = [
    "CORRUPTIONS",
    "CallableCorruption",
    "Corruption",
    "GaussianNoise",
    "Masking",
    "SaltAndPepper",
    "Swap",
    "make_corruption",
]


class Corruption:
    """Random change of rows; base of the corruptions.

    A subclass gives `corrupt`, called for a positive level only.

    Parameters
    ----------
    level : float
        Strength. A level of 0 changes nothing.

    Attributes
    ----------
    max_level : float
        Highest level allowed.

    Raises
    ------
    ValueError
        If `level` is no number, negative, above `max_level` or not finite.

    See Also
    --------
    make_corruption : Make a corruption by its name.

    Examples
    --------
    >>> from skvae.corruptions import CORRUPTIONS
    >>> sorted(CORRUPTIONS)
    ['gaussian', 'masking', 'salt_and_pepper', 'swap']
    """

    max_level: ClassVar[float] = 1.0

    def __init__(self, level: float) -> None:
        is_number = isinstance(level, Real)
        if not (is_number and 0.0 <= level <= self.max_level):
            allowed = (
                "in [0, 1]" if self.max_level == 1.0 else "non-negative and finite"
            )
            raise ValueError(
                f"level of {type(self).__name__} must be {allowed}. Got {level!r}."
            )
        self.level = float(level)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Corrupt rows.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_features)
            Clean rows, left as they are.
        generator : torch.Generator
            Source of randomness, on the device of `x`.

        Returns
        -------
        corrupted : Tensor of shape (n_rows, n_features)
            New tensor of the same dtype; `x` itself at level 0.
        """
        if self.level == 0.0:
            return x
        return self.corrupt(x, generator)

    def corrupt(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Corrupt rows at a positive level; see `__call__`.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_features)
            Clean rows.
        generator : torch.Generator
            Source of randomness, on the device of `x`.

        Returns
        -------
        corrupted : Tensor of shape (n_rows, n_features)
            New tensor of the same dtype.
        """
        raise NotImplementedError


class GaussianNoise(Corruption):
    """Add normal noise to every cell.

    Parameters
    ----------
    level : float
        Standard deviation of the noise, in the units of the scaled columns.

    Raises
    ------
    ValueError
        If `level` is negative or not finite.

    See Also
    --------
    SaltAndPepper : Noise for data with common bounds.

    Examples
    --------
    >>> import torch
    >>> from skvae.corruptions import GaussianNoise
    >>> x = torch.zeros(1000, 10)
    >>> noisy = GaussianNoise(0.5)(x, torch.Generator().manual_seed(0))
    >>> round(float(noisy.std()), 1)
    0.5
    """

    max_level = float(torch.finfo(torch.float32).max)

    def corrupt(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise; see `Corruption`."""
        if not x.is_floating_point():
            raise ValueError(
                f"GaussianNoise needs floating point rows. Got {x.dtype}. Use Masking "
                "or Swap for codes."
            )
        noise = torch.randn(
            x.shape, generator=generator, dtype=x.dtype, device=x.device
        )
        return torch.add(x, noise, alpha=self.level)


class Masking(Corruption):
    """Set random cells to a fixed value [1]_.

    Parameters
    ----------
    level : float
        Probability of a cell to be set, in [0, 1].
    fill : float or array-like of shape (n_features,), default=0.0
        Value of the cells set: 0 is the mean of a standardised column, or "off";
        for codes, the code of a masked cell.

    Raises
    ------
    ValueError
        If `level` is not in [0, 1].

    See Also
    --------
    Swap : Replaces cells by those of other rows instead of zeros.

    References
    ----------
    .. [1] Vincent, P. et al. (2010). "Stacked denoising autoencoders." Journal of
           Machine Learning Research 11, 3371-3408.

    Examples
    --------
    >>> import torch
    >>> from skvae.corruptions import Masking
    >>> Masking(1.0, fill=-1)(torch.tensor([[3, 4]]), torch.Generator())
    tensor([[-1, -1]])
    """

    def __init__(self, level: float, fill: Any = 0.0) -> None:
        super().__init__(level)
        self.fill = fill

    def corrupt(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Set random cells to `fill`; see `Corruption`."""
        return torch.where(_cells(x, self.level, generator), _like(self.fill, x), x)


class SaltAndPepper(Corruption):
    """Set random cells to the lowest or the highest value of their column.

    Parameters
    ----------
    level : float
        Probability of a cell to be set, in [0, 1]; half go to each end.
    low, high : float or array-like of shape (n_features,)
        Lowest and highest value of each column.

    Raises
    ------
    ValueError
        If `level` is not in [0, 1].

    See Also
    --------
    GaussianNoise : Noise for data without bounds.

    Examples
    --------
    >>> import torch
    >>> from skvae.corruptions import SaltAndPepper
    >>> noise = SaltAndPepper(1.0, low=0.0, high=1.0)
    >>> noise(torch.full((1, 5), 0.5), torch.Generator().manual_seed(1)).unique()
    tensor([0., 1.])
    """

    def __init__(self, level: float, low: Any, high: Any) -> None:
        super().__init__(level)
        self.low = low
        self.high = high

    def corrupt(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Set random cells to an end of their column; see `Corruption`."""
        # One uniform number a cell says both whether and to which end.
        uniform = _uniform(x, generator)
        corrupted = torch.where(uniform < self.level, _like(self.high, x), x)
        return torch.where(uniform < 0.5 * self.level, _like(self.low, x), corrupted)


class Swap(Corruption):
    """Replace random cells by the value of another row in the same column.

    Every cell is kept or replaced on its own, so that each column keeps its
    distribution while the links between columns break. A single row is left as it is.

    Parameters
    ----------
    level : float
        Probability of a cell to be replaced, in [0, 1].

    Raises
    ------
    ValueError
        If `level` is not in [0, 1].

    See Also
    --------
    Masking : Replaces cells by zeros.

    Examples
    --------
    >>> import torch
    >>> from skvae.corruptions import Swap
    >>> Swap(1.0)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.Generator())
    tensor([[3., 4.],
            [1., 2.]])
    """

    def corrupt(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Replace random cells; see `Corruption`."""
        n_rows = x.shape[0]
        if n_rows < 2:
            return x.clone()
        chosen = _cells(x, self.level, generator)
        # A shift of 1 to n - 1 rows never gives a cell back to its own row.
        donors = torch.randint(1, n_rows, x.shape, generator=generator, device=x.device)
        donors += torch.arange(n_rows, device=x.device).unsqueeze(-1)
        donors -= n_rows * (donors >= n_rows)
        return torch.where(chosen, x.gather(0, donors), x)


class CallableCorruption(Corruption):
    """Corrupt rows by a function of one's own.

    Parameters
    ----------
    function : callable
        Called as ``function(x, generator)`` with a copy of the rows; gives the
        corrupted rows, a tensor of the same shape and dtype.
    n_codes : array-like of shape (n_features,), default=None
        Codes of each column, where rows are codes: from 0 to that, or -1 for a cell
        that is not known.

    Raises
    ------
    ValueError
        If `function` is not callable.

    See Also
    --------
    make_corruption : Make a corruption by its name.

    Examples
    --------
    >>> import torch
    >>> from skvae.corruptions import CallableCorruption
    >>> CallableCorruption(lambda x, generator: -x)(torch.ones(1, 2), None)
    tensor([[-1., -1.]])
    """

    def __init__(
        self,
        function: Callable[[Tensor, torch.Generator], Tensor],
        n_codes: Any = None,
    ) -> None:
        if not callable(function):
            raise ValueError(f"corruption must be callable. Got {function!r}.")
        super().__init__(1.0)
        self.function = function
        self.n_codes = n_codes

    def corrupt(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Call the function on a copy; see `Corruption`.

        Raises
        ------
        ValueError
            If the function does not give a tensor of the same shape and dtype, or
            gives numbers that are not finite, or codes that there are not.
        """
        # A function that works in place must not change the target of the loss.
        corrupted = self.function(x.clone(), generator)
        if not isinstance(corrupted, Tensor):
            raise ValueError(
                "corruption must give a torch tensor. "
                f"Got {type(corrupted).__name__} from {self.function!r}."
            )
        if corrupted.shape != x.shape or corrupted.dtype != x.dtype:
            raise ValueError(
                f"corruption must keep shape {tuple(x.shape)} and {x.dtype}. Got "
                f"{tuple(corrupted.shape)} and {corrupted.dtype} from "
                f"{self.function!r}."
            )
        wrong = ~torch.isfinite(corrupted)
        if bool(wrong.any()):
            raise ValueError(
                "corruption must give finite numbers. Got "
                f"{corrupted[wrong][0].item()} from {self.function!r}."
            )
        if self.n_codes is not None:
            wrong = (corrupted < -1) | (corrupted >= _like(self.n_codes, x))
            if bool(wrong.any()):
                row, column = wrong.nonzero()[0].tolist()
                raise ValueError(
                    f"corruption must give codes from -1 (a hidden cell) to "
                    f"{int(self.n_codes[column]) - 1} in column {column} of a table. "
                    f"Got {int(corrupted[row, column])} from {self.function!r}."
                )
        return corrupted


def make_corruption(
    corruption: str | Corruption | Callable[[Tensor, torch.Generator], Tensor],
    level: float,
    *,
    low: Any = None,
    high: Any = None,
    fill: Any = 0.0,
    n_codes: Any = None,
) -> Corruption:
    """Make a corruption from its name, a function or itself.

    Parameters
    ----------
    corruption : {"gaussian", "masking", "salt_and_pepper", "swap"}, callable or \
            Corruption
        Name, function ``(x, generator) -> x``, or a corruption, given back as it is.
    level : float
        Strength: a standard deviation for "gaussian", else the probability of a cell
        to be changed. Functions and corruptions have their own; it is ignored there.
    low, high : float or array-like of shape (n_features,), default=None
        Lowest and highest value of each column, for "salt_and_pepper".
    fill : float or array-like of shape (n_features,), default=0.0
        Value of masked cells, for "masking".
    n_codes : array-like of shape (n_features,), default=None
        Codes of each column, for functions of codes.

    Returns
    -------
    corruption : Corruption
        Called as ``corruption(x, generator)``.

    Raises
    ------
    ValueError
        If the name or the level is not allowed, or `low` or `high` is missing.

    Examples
    --------
    >>> from skvae.corruptions import make_corruption
    >>> make_corruption("masking", 0.25).level
    0.25
    """
    if isinstance(corruption, Corruption):
        return corruption
    if not isinstance(corruption, str):
        return CallableCorruption(corruption, n_codes)
    if corruption not in CORRUPTIONS:
        raise ValueError(
            f"corruption must be one of {sorted(CORRUPTIONS)} or a callable. "
            f"Got {corruption!r}."
        )
    if corruption == "masking":
        return Masking(level, fill)
    if corruption != "salt_and_pepper":
        return CORRUPTIONS[corruption](level)
    if low is None or high is None:
        raise ValueError(
            "corruption='salt_and_pepper' needs low and high, the range of each "
            f"column. Got low={low!r}, high={high!r}."
        )
    return SaltAndPepper(level, low, high)


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a uniform number a cell, in float32 whatever the dtype of the rows."""
    return torch.rand(
        x.shape, generator=generator, dtype=torch.float32, device=x.device
    )


def _cells(x: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Choose each cell with the same probability."""
    return _uniform(x, generator) < level


def _like(value: Any, x: Tensor) -> Tensor:
    if not isinstance(value, Real):
        return torch.as_tensor(value).to(device=x.device, dtype=x.dtype)
    # Filled where the rows are: copying it there would wait for the device.
    return x.new_full((), float(value))


CORRUPTIONS: dict[str, type[Corruption]] = {
    "gaussian": GaussianNoise,
    "masking": Masking,
    "salt_and_pepper": SaltAndPepper,
    "swap": Swap,
}
