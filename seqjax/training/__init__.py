"""The one training function, and what it keeps on disk."""

from seqjax.training.checkpoint import Checkpoints as Checkpoints
from seqjax.training.config import from_config as from_config
from seqjax.training.config import keep_options as keep_options
from seqjax.training.config import to_config as to_config
from seqjax.training.config import write_json as write_json
from seqjax.training.devices import use_cores as use_cores
from seqjax.training.fit import FitResult as FitResult
from seqjax.training.fit import evaluate as evaluate
from seqjax.training.fit import fit as fit
from seqjax.training.log import plot_curves as plot_curves
from seqjax.training.log import read_log as read_log
from seqjax.training.loop import Callback as Callback
from seqjax.training.loop import Run as Run
from seqjax.training.members import grid as grid
from seqjax.training.sharded import sharded as sharded
from seqjax.training.state import Totals as Totals
from seqjax.training.state import TrainState as TrainState
from seqjax.training.sweep import sweep as sweep
from seqjax.training.sweep_result import SweepResult as SweepResult
