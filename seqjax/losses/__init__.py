"""Masked losses: averaged over valid tokens, summed in at least float32.

`logits: [*tokens, classes]` stand beside `targets: int[*tokens]` and `mask: bool[*tokens]`, True at
valid tokens; `*tokens` is any number of axes, [time, *batch] for a sequence. Values under a False mask,
even NaN or a target of -1, change neither loss nor gradient, and a batch without a valid token has loss
0 and gradient 0. A target outside the classes at a valid token makes the loss *and* the gradient NaN,
since a compiled function cannot raise.

The scalar functions average one batch. The mean over ragged windows and batches is not the mean of
their means: merge `Mean`s and divide once.

>>> import jax.numpy as jnp
>>> from seqjax import losses
>>> full = losses.mean_over(jnp.array([1.0, 2.0, 3.0]))
>>> ragged = losses.mean_over(jnp.array([8.0, jnp.nan, jnp.nan]), jnp.array([True, False, False]))
>>> print(full.merge(ragged).value)
3.5
"""

from seqjax.losses.classes import accuracy as accuracy
from seqjax.losses.classes import bits_per_token as bits_per_token
from seqjax.losses.classes import cross_entropy as cross_entropy
from seqjax.losses.classes import perplexity as perplexity
from seqjax.losses.classes import token_accuracy as token_accuracy
from seqjax.losses.classes import token_cross_entropy as token_cross_entropy
from seqjax.losses.linear import Choices as Choices
from seqjax.losses.linear import linear_cross_entropy as linear_cross_entropy
from seqjax.losses.mean import Mean as Mean
from seqjax.losses.mean import activation_regularization as activation_regularization
from seqjax.losses.mean import binary_cross_entropy as binary_cross_entropy
from seqjax.losses.mean import mean_over as mean_over
from seqjax.losses.mean import mean_squared_error as mean_squared_error
from seqjax.losses.mean import (
    temporal_activation_regularization as temporal_activation_regularization,
)
