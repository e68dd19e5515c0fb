"""What `Module.prepare` does until `release`: parameters that cannot be written to need no look at each call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .module import Module


class Prepared:
    """A model whose parameters are read-only, and whose packed weights are taken for theirs."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self._arrays = [a for layer in model.flatten() for a in layer.params.values() if a.flags.writeable]
        for array in self._arrays:
            array.flags.writeable = False
        for layer in (model, *model.flatten()):
            layer._prepared = self
            stack = layer.open_stack()
            if stack is not None:
                stack.freeze(True)

    def release(self) -> None:
        for array in self._arrays:
            array.flags.writeable = True
        for layer in (self.model, *self.model.flatten()):
            layer._prepared = None
            if layer._stack is not None:
                layer._stack.freeze(False)
