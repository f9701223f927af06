"""seqjax: a functional sequence-model toolkit on JAX.

A recurrent cell is one pure function, `step(params, state, x) -> (state, y)`. How it is run over
time, differentiated, trained and looked at are separate layers over that one contract.
"""

from seqjax.cell import Cell as Cell
from seqjax.cell import GatedCell as GatedCell
from seqjax.cell import Layered as Layered
from seqjax.cell import as_gated as as_gated
from seqjax.cells import GRU as GRU
from seqjax.cells import IRNN as IRNN
from seqjax.cells import LSTM as LSTM
from seqjax.cells import Elman as Elman
from seqjax.cells import PreActivationRNN as PreActivationRNN
from seqjax.summary import summary as summary
from seqjax.unroll import explain as explain
from seqjax.unroll import unroll as unroll
from seqjax.unroll import unroll_with_info as unroll_with_info
from seqjax.wrappers import Bidirectional as Bidirectional
from seqjax.wrappers import Dropout as Dropout
from seqjax.wrappers import Residual as Residual
from seqjax.wrappers import Stack as Stack

__version__ = "0.1.0"
