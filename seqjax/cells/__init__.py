"""The cells: each file holds one idea, with its equations, source and initial values."""

from seqjax.cells.cho_gru import ChoGRU as ChoGRU
from seqjax.cells.cifg import CIFG as CIFG
from seqjax.cells.clockwork import ClockworkRNN as ClockworkRNN
from seqjax.cells.diagonal import DiagonalGRU as DiagonalGRU
from seqjax.cells.diagonal import DiagonalLSTM as DiagonalLSTM
from seqjax.cells.elman import IRNN as IRNN
from seqjax.cells.elman import Elman as Elman
from seqjax.cells.elman import PreActivationRNN as PreActivationRNN
from seqjax.cells.gru import GRU as GRU
from seqjax.cells.lru import LRU as LRU
from seqjax.cells.lstm import LSTM as LSTM
from seqjax.cells.mgu import MGU as MGU
from seqjax.cells.minimal import MinGRU as MinGRU
from seqjax.cells.minimal import MinLSTM as MinLSTM
from seqjax.cells.peephole import PeepholeLSTM as PeepholeLSTM
from seqjax.cells.rglru import RGLRU as RGLRU
from seqjax.cells.skip import SkipRNN as SkipRNN
from seqjax.cells.slstm import SLSTM as SLSTM
from seqjax.cells.time_delay import TimeDelay as TimeDelay
