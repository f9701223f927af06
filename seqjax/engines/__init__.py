"""Running a cell over time: one driver, and engines that all give the values of the plain scan."""

from seqjax.engines.dispatch import ENGINES as ENGINES
from seqjax.engines.driver import UnrollInfo as UnrollInfo
from seqjax.engines.driver import unroll as unroll
from seqjax.engines.driver import unroll_with_info as unroll_with_info
from seqjax.engines.explain import explain as explain
from seqjax.engines.fold import unroll_fold as unroll_fold
from seqjax.engines.memory import plan_memory as plan_memory
