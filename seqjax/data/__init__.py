"""From text to arrays: tokenizers, lanes, splits. And tasks that are drawn: `synthetic`."""

from seqjax.data.buckets import Buckets as Buckets
from seqjax.data.buckets import Example as Example
from seqjax.data.buckets import Padded as Padded
from seqjax.data.buckets import pad as pad
from seqjax.data.byte_level import ByteTokenizer as ByteTokenizer
from seqjax.data.characters import CharTokenizer as CharTokenizer
from seqjax.data.lanes import Batch as Batch
from seqjax.data.lanes import Windows as Windows
from seqjax.data.lanes import lanes as lanes
from seqjax.data.lanes import passes as passes
from seqjax.data.loading import load_tokenizer as load_tokenizer
from seqjax.data.subwords import BPETokenizer as BPETokenizer
from seqjax.data.synthetic import AddingBatch as AddingBatch
from seqjax.data.synthetic import SymbolBatch as SymbolBatch
from seqjax.data.synthetic import adding_problem as adding_problem
from seqjax.data.synthetic import copy_task as copy_task
from seqjax.data.synthetic import parity as parity
from seqjax.data.text import read_bytes as read_bytes
from seqjax.data.text import read_text as read_text
from seqjax.data.text import shakespeare as shakespeare
from seqjax.data.text import split as split
from seqjax.data.tokenizer import Stream as Stream
from seqjax.data.tokenizer import Tokenizer as Tokenizer
from seqjax.data.words import WordTokenizer as WordTokenizer
