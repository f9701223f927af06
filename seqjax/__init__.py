"""seqjax: a functional sequence-model toolkit on JAX.

A recurrent cell is one pure function, `step(params, state, x) -> (state, y)`. How it is run over
time, differentiated, trained and looked at are separate layers over that one contract.
"""

from types import ModuleType

from seqjax import data as data
from seqjax import diagnostics as diagnostics
from seqjax import initializers as initializers
from seqjax import losses as losses
from seqjax import metrics as metrics
from seqjax import models as models
from seqjax import optim as optim
from seqjax import training as training
from seqjax.cell import Cell as Cell
from seqjax.cell import Child as Child
from seqjax.cell import GatedCell as GatedCell
from seqjax.cell import Layered as Layered
from seqjax.cell import LinearCell as LinearCell
from seqjax.cell import as_gated as as_gated
from seqjax.cell import as_linear as as_linear
from seqjax.cells.clockwork import ClockworkRNN as ClockworkRNN
from seqjax.cells.diagonal import DiagonalGRU as DiagonalGRU
from seqjax.cells.diagonal import DiagonalLSTM as DiagonalLSTM
from seqjax.cells.elman import IRNN as IRNN
from seqjax.cells.elman import Elman as Elman
from seqjax.cells.elman import PreActivationRNN as PreActivationRNN
from seqjax.cells.gru import GRU as GRU
from seqjax.cells.gru import ChoGRU as ChoGRU
from seqjax.cells.lru import LRU as LRU
from seqjax.cells.lstm import CIFG as CIFG
from seqjax.cells.lstm import LSTM as LSTM
from seqjax.cells.lstm import PeepholeLSTM as PeepholeLSTM
from seqjax.cells.mgu import MGU as MGU
from seqjax.cells.minimal import MinGRU as MinGRU
from seqjax.cells.minimal import MinLSTM as MinLSTM
from seqjax.cells.rglru import RGLRU as RGLRU
from seqjax.cells.skip import SkipRNN as SkipRNN
from seqjax.cells.slstm import SLSTM as SLSTM
from seqjax.cells.time_delay import TimeDelay as TimeDelay
from seqjax.decoding import beam_search as beam_search
from seqjax.decoding import continuations as continuations
from seqjax.decoding import generate as generate
from seqjax.decoding import score as score
from seqjax.decoding import stream as stream
from seqjax.diagnostics import diagnose as diagnose
from seqjax.engines import explain as explain
from seqjax.engines import plan_memory as plan_memory
from seqjax.engines import unroll as unroll
from seqjax.engines import unroll_fold as unroll_fold
from seqjax.engines import unroll_with_info as unroll_with_info
from seqjax.gates import name_gate as name_gate
from seqjax.gradients import OnlineBatch as OnlineBatch
from seqjax.gradients import OnlineParams as OnlineParams
from seqjax.gradients import bptt as bptt
from seqjax.gradients import eprop as eprop
from seqjax.gradients import rflo as rflo
from seqjax.gradients import rtrl as rtrl
from seqjax.gradients import snap as snap
from seqjax.gradients import tbptt as tbptt
from seqjax.gradients import uoro as uoro
from seqjax.models import translate as translate
from seqjax.parameters import summary as summary
from seqjax.wrappers import GLU as GLU
from seqjax.wrappers import Bidirectional as Bidirectional
from seqjax.wrappers import Dropout as Dropout
from seqjax.wrappers import LayerNorm as LayerNorm
from seqjax.wrappers import LearnedState as LearnedState
from seqjax.wrappers import RecurrentDropout as RecurrentDropout
from seqjax.wrappers import Residual as Residual
from seqjax.wrappers import Stack as Stack
from seqjax.wrappers import Wrapper as Wrapper
from seqjax.wrappers import Zoneout as Zoneout
from seqjax.wrappers import drop_weights as drop_weights

__version__ = "0.1.0"


def __dir__() -> list[str]:
    """The public names, without the modules that they come from."""
    modules = (data, diagnostics, initializers, losses, metrics, models, optim, training)
    return sorted(
        name
        for name, value in globals().items()
        if name != "ModuleType" and (value in modules or not isinstance(value, ModuleType))
    )
