"""All parameters of a module in one buffer, so that one kernel updates them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FlatParameters"]

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector load


class FlatParameters:
    """All trainable parameters of a module as views of one contiguous buffer.

    Parameters of two and more axes (the decayed weights) come first, the others
    after them; each starts on a 64-byte boundary and the padding is zero. The
    parameters stay what they were, ``p.data`` and ``p.grad`` become views, so that
    an optimiser over `weights` and `others` updates them by one kernel each.

    Parameters
    ----------
    module : nn.Module
        Its parameters that require a gradient are moved; a shared one appears once.
        The parameters must agree in dtype and device.

    Attributes
    ----------
    data, grad : Tensor of shape (n_total,)
        The values and the gradients, padding included.
    weights : nn.Parameter
        The part of `data` with the parameters of two and more axes; may be empty.
    others : nn.Parameter
        The rest of `data` (biases, scales); may be empty.
    all : nn.Parameter
        The whole of `data`, for an optimiser without weight decay.

    Raises
    ------
    ValueError
        If the parameters differ in dtype or device.

    Notes
    -----
    The `.grad` views do not survive ``zero_grad(set_to_none=True)`` of the module;
    `bind` puts them back. Plain ``pickle`` writes the whole buffer once per
    parameter: call `release` when training is over.

    Examples
    --------
    >>> import torch
    >>> from skvae._flat import FlatParameters
    >>> layer = torch.nn.Linear(3, 2)
    >>> flat = FlatParameters(layer)
    >>> with torch.no_grad():
    ...     _ = flat.data.zero_()
    >>> layer.weight.sum().item()
    0.0
    """

    def __init__(self, module: nn.Module):
        self._module = module
        found = [p for p in module.parameters() if p.requires_grad]
        heavy = [p for p in found if p.dim() >= 2]
        light = [p for p in found if p.dim() < 2]
        self._parameters = heavy + light
        dtype, device = self._kind()
        step = max(_ALIGNMENT // dtype.itemsize, 1)
        starts, end, split = [], 0, 0
        for i, p in enumerate(self._parameters):
            split = end if i == len(heavy) else split
            starts.append(end)
            end += -(-p.numel() // step) * step
        split = split if light else end
        self.data = torch.zeros(end, dtype=dtype, device=device)
        self.grad = torch.zeros_like(self.data)
        self._grads = []
        self.unbind()
        for p, start in zip(self._parameters, starts, strict=True):
            place = slice(start, start + p.numel())
            self.data[place].copy_(p.detach().reshape(-1))
            p.data = self.data[place].view(p.shape)
            p.grad = None
            self._grads.append(self.grad[place].view(p.shape))
        self.weights = self._leaf(0, split)
        self.others = self._leaf(split, end)
        self.all = self._leaf(0, end)
        self.bind()

    def _kind(self) -> tuple[torch.dtype, torch.device]:
        kinds = {(p.dtype, p.device) for p in self._parameters}
        if len(kinds) > 1:
            got = sorted(f"{dtype} on {device}" for dtype, device in kinds)
            raise ValueError(
                "All trainable parameters of a network must have the same dtype and "
                f"device. Got {got}; convert the module, e.g. by .to(dtype, device)."
            )
        return kinds.pop() if kinds else (torch.float32, torch.device("cpu"))

    def _leaf(self, start: int, stop: int) -> nn.Parameter:
        leaf = nn.Parameter(self.data[start:stop])
        leaf.grad = self.grad[start:stop]
        return leaf

    def bind(self) -> None:
        """Make every ``p.grad`` its view again and turn the fused pass on.

        Raises
        ------
        RuntimeError
            If the parameters have left the buffer, e.g. by ``module.to(device)``.
        """
        for p, grad in zip(self._parameters, self._grads, strict=True):
            # module.to(...) also exchanges the memory behind the gradients' views.
            if not (_holds(self.data, p) and _holds(self.grad, grad)):
                raise RuntimeError(
                    "The parameters of the module have left the flat buffer, e.g. "
                    "by module.to(...) or release(); make a new FlatParameters."
                )
            if p.grad is not grad:
                p.grad = grad
        for net in self._module.modules():
            bind = getattr(net, "bind_gradients", None)
            if callable(bind):
                bind()

    def unbind(self) -> None:
        """Turn the fused pass off: gradients come from plain autograd.

        The ``.grad`` views stay, autograd adds to them in place.
        """
        for net in self._module.modules():
            unbind = getattr(net, "unbind_gradients", None)
            if callable(unbind):
                unbind()

    def release(self) -> None:
        """Give every parameter its own memory again and drop the gradients.

        The optimiser's tensors no longer reach the module after that.
        """
        self.unbind()
        for p in self._parameters:
            if _holds(self.data, p):
                p.data = p.data.clone()
            p.grad = None

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        self.grad.zero_()

    def snapshot(self) -> Tensor:
        """Copy the values of all parameters.

        Returns
        -------
        values : Tensor of shape (n_total,)
            For `restore`. Buffers of the module are not part of it.
        """
        return self.data.clone()

    def restore(self, snapshot: Tensor) -> None:
        """Set all parameters to the values of a snapshot, in place.

        Parameters
        ----------
        snapshot : Tensor of shape (n_total,)
            What `snapshot` returned.
        """
        self.data.copy_(snapshot)


def _holds(buffer: Tensor, view: Tensor) -> bool:
    mine, theirs = buffer.untyped_storage(), view.untyped_storage()
    return mine.data_ptr() == theirs.data_ptr() or view.numel() == 0
