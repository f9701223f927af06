"""Models: pure init and apply pairs over any cell."""

from seqjax.models.language_model import LanguageModel as LanguageModel
from seqjax.models.language_model import LanguageModelParams as LanguageModelParams
