"""Hooks of our own, put on as torch does it, in a part of the time.

Most of the time of `register_forward_hook` and `register_hook` goes into the handle
that they return.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class ForwardHook:
    """A hook that a module calls after its forward, with keywords."""

    __slots__ = ("_hook", "_module")

    def __init__(self, module: nn.Module, hook: Any) -> None:
        self._module, self._hook = module, hook
        module._forward_hooks_with_kwargs[hook] = True
        module._forward_hooks[hook] = hook

    def remove(self) -> None:
        """Take it off."""
        self._module._forward_hooks.pop(self._hook, None)
        self._module._forward_hooks_with_kwargs.pop(self._hook, None)


def on_gradient(output: Any, hook: Callable[[Tensor], None]) -> None:
    """Call a hook with the gradient at an output, when there is one."""
    if output._backward_hooks is not None or output.grad_fn is None:
        output.register_hook(hook)
        return
    output._backward_hooks = OrderedDict({hook: hook})
    output.grad_fn._register_hook_dict(output)
