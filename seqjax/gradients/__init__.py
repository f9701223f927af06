"""Ways to differentiate through time: gradients of one loss signature, and updates from them."""

from seqjax.gradients.accumulated import AccumulatedTBPTT as AccumulatedTBPTT
from seqjax.gradients.accumulated import accumulated_tbptt as accumulated_tbptt
from seqjax.gradients.bptt import Gradient as Gradient
from seqjax.gradients.bptt import GradientFn as GradientFn
from seqjax.gradients.bptt import Loss as Loss
from seqjax.gradients.bptt import Metrics as Metrics
from seqjax.gradients.bptt import bptt as bptt
from seqjax.gradients.bptt import with_loss as with_loss
from seqjax.gradients.tbptt import TBPTT as TBPTT
from seqjax.gradients.tbptt import Method as Method
from seqjax.gradients.tbptt import Update as Update
from seqjax.gradients.tbptt import UpdateFn as UpdateFn
from seqjax.gradients.tbptt import apply_gradient as apply_gradient
from seqjax.gradients.tbptt import tbptt as tbptt
from seqjax.gradients.tbptt import whole_batch as whole_batch
