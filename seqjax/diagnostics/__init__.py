"""Look into a recurrent network: where its gradient comes from, and why it vanishes or explodes."""

from seqjax.diagnostics.by_lag import Flow as Flow
from seqjax.diagnostics.by_lag import flow as flow
from seqjax.diagnostics.exponents import Lyapunov as Lyapunov
from seqjax.diagnostics.exponents import lyapunov as lyapunov
from seqjax.diagnostics.gate_counts import Saturation as Saturation
from seqjax.diagnostics.gate_counts import saturation as saturation
from seqjax.diagnostics.matrices import Spectrum as Spectrum
from seqjax.diagnostics.matrices import spectrum as spectrum
from seqjax.diagnostics.products import Jacobians as Jacobians
from seqjax.diagnostics.products import bound as bound
from seqjax.diagnostics.products import factor as factor
from seqjax.diagnostics.products import jacobians as jacobians
from seqjax.diagnostics.report import Report as Report
from seqjax.diagnostics.report import diagnose as diagnose
from seqjax.diagnostics.sentences import Sentence as Sentence
from seqjax.diagnostics.trajectory import NonFinite as NonFinite
