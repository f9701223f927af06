"""The cells: each file holds one idea, with its equations, source and initial values."""

from seqjax.cells.elman import IRNN as IRNN
from seqjax.cells.elman import Elman as Elman
from seqjax.cells.elman import PreActivationRNN as PreActivationRNN
from seqjax.cells.gru import GRU as GRU
from seqjax.cells.lstm import LSTM as LSTM
