"""AdamW over flat buffers, without the bookkeeping of many parameters."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor


class FlatAdamW(torch.optim.AdamW):
    """AdamW with a lean step for few, large parameters.

    `quick_step` does what `step` does in one fused kernel a parameter, without the
    hooks, records and checks that cost more than the arithmetic on small networks. Its
    state is that of `torch.optim.AdamW`.

    Parameters
    ----------
    params : iterable
        Parameters or groups.
    **kwargs : dict
        As for `torch.optim.AdamW`; always fused.
    """

    # torch hides these from torch.compile, and loads its compiler to do so: more than
    # a second in the first fit of a process.
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)

    def __init__(self, params: Any, **kwargs: Any):
        super().__init__(params, **{**kwargs, "fused": True})

    @torch.no_grad()
    def quick_step(self, grad_scale: Tensor | None = None) -> None:
        """Update the parameters.

        Parameters
        ----------
        grad_scale : Tensor of shape () or None, default=None
            What gradients are divided by first.
        """
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros((), device=p.device)
                    state["exp_avg"] = torch.zeros_like(p)
                    state["exp_avg_sq"] = torch.zeros_like(p)
                elif not p.shape == state["exp_avg"].shape == state["exp_avg_sq"].shape:
                    # The kernel does not look, and would write beyond them.
                    raise ValueError(
                        f"The moments of a parameter of shape {tuple(p.shape)} have "
                        f"shape {tuple(state['exp_avg'].shape)}."
                    )
                state["step"] += 1
                torch._fused_adamw_(
                    [p],
                    [p.grad],
                    [state["exp_avg"]],
                    [state["exp_avg_sq"]],
                    [],
                    [state["step"]],
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                    grad_scale=grad_scale,
                    found_inf=None,
                )
