"""The numbers of activations, for layers that do not have a CellSpec yet."""

from .. import _native
from .._validate import check_positive
from . import spec

NONLINEARITIES = {name: _native.ACTIVATIONS[name] for name in spec.NONLINEARITIES}
GATE_ACTIVATIONS = {name: _native.ACTIVATIONS[name] for name in spec.GATE_ACTIVATIONS}
positive = check_positive
