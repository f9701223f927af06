"""Decoding and scoring."""

from seqjax.decoding.beam import Hypotheses as Hypotheses
from seqjax.decoding.beam import beam_search as beam_search
from seqjax.decoding.beam import continuations as continuations
from seqjax.decoding.decode import Generated as Generated
from seqjax.decoding.decode import Generative as Generative
from seqjax.decoding.decode import Score as Score
from seqjax.decoding.decode import generate as generate
from seqjax.decoding.decode import score as score
from seqjax.decoding.decode import stream as stream
from seqjax.decoding.sampling import sample as sample
