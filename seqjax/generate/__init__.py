"""Decoding and scoring."""

from seqjax.generate.beam import Hypotheses as Hypotheses
from seqjax.generate.beam import beam_search as beam_search
from seqjax.generate.beam import continuations as continuations
from seqjax.generate.decode import Generated as Generated
from seqjax.generate.decode import Generative as Generative
from seqjax.generate.decode import generate as generate
from seqjax.generate.decode import stream as stream
from seqjax.generate.sampling import sample as sample
from seqjax.generate.score import Score as Score
from seqjax.generate.score import score as score
from seqjax.generate.translate import translate as translate
