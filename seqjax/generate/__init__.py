"""Decoding and scoring."""

from seqjax.generate.decode import Generated as Generated
from seqjax.generate.decode import Generative as Generative
from seqjax.generate.decode import generate as generate
from seqjax.generate.decode import stream as stream
from seqjax.generate.sampling import sample as sample
from seqjax.generate.score import Score as Score
from seqjax.generate.score import score as score
