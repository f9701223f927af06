"""Wrappers: each is itself a cell, made of cells."""

from seqjax.wrappers.bidirectional import Bidirectional as Bidirectional
from seqjax.wrappers.dropout import Dropout as Dropout
from seqjax.wrappers.dropout import RecurrentDropout as RecurrentDropout
from seqjax.wrappers.dropout import drop_weights as drop_weights
from seqjax.wrappers.layer_norm import LayerNorm as LayerNorm
from seqjax.wrappers.learned_state import LearnedState as LearnedState
from seqjax.wrappers.residual import GLU as GLU
from seqjax.wrappers.residual import Residual as Residual
from seqjax.wrappers.stack import Stack as Stack
from seqjax.wrappers.wrapper import Wrapper as Wrapper
from seqjax.wrappers.zoneout import Zoneout as Zoneout
