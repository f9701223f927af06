"""Models: pure init and apply pairs over any cell."""

from seqjax.models.classifier import Classifier as Classifier
from seqjax.models.classifier import ClassifierParams as ClassifierParams
from seqjax.models.inputs import Inputs as Inputs
from seqjax.models.inputs import Tokens as Tokens
from seqjax.models.inputs import Vectors as Vectors
from seqjax.models.language_model import LanguageModel as LanguageModel
from seqjax.models.language_model import LanguageModelParams as LanguageModelParams
from seqjax.models.readout import Readout as Readout
from seqjax.models.tagger import Tagger as Tagger
from seqjax.models.tagger import TaggerParams as TaggerParams
from seqjax.models.words import Spelled as Spelled
from seqjax.models.words import WordsAndLetters as WordsAndLetters
