"""Wrappers: each is itself a cell, made of cells."""

from seqjax.wrappers.bidirectional import Bidirectional as Bidirectional
from seqjax.wrappers.dropout import Dropout as Dropout
from seqjax.wrappers.residual import Residual as Residual
from seqjax.wrappers.stack import Stack as Stack
