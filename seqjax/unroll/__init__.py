"""Running a cell over time: one driver, and engines that all give the values of the plain scan."""

from seqjax.unroll.driver import UnrollInfo as UnrollInfo
from seqjax.unroll.driver import unroll as unroll
from seqjax.unroll.driver import unroll_with_info as unroll_with_info
from seqjax.unroll.engines import ENGINES as ENGINES
from seqjax.unroll.explain import explain as explain
from seqjax.unroll.fold import unroll_fold as unroll_fold
from seqjax.unroll.memory import plan_memory as plan_memory
