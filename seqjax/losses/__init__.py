"""What is minimised and reported: masked, averaged over real tokens, summed in at least float32.

`logits: [*tokens, classes]` stand against `targets: int[*tokens]`, and `mask: bool[*tokens]` is True
at real tokens; `*tokens` is any number of axes, [time, *batch] for a sequence. What stands under a
False mask, even NaN or a target of -1, changes neither values nor gradients, and a batch without a
real token has loss 0 and gradient 0. A target that is no class at a real token makes the loss *and*
the gradient NaN: a compiled function has no other way to refuse a value.

The scalar functions average one batch. A mean over ragged windows and batches is not the mean of
their means: sum `Mean`s instead, and divide once.

>>> import jax.numpy as jnp
>>> from seqjax import losses
>>> full = losses.mean_over(jnp.array([1.0, 2.0, 3.0]))
>>> ragged = losses.mean_over(jnp.array([8.0, jnp.nan, jnp.nan]), jnp.array([True, False, False]))
>>> print(full.merge(ragged).value)
3.5
"""

from seqjax.losses.activations import activation_regularization as activation_regularization
from seqjax.losses.activations import (
    temporal_activation_regularization as temporal_activation_regularization,
)
from seqjax.losses.classes import accuracy as accuracy
from seqjax.losses.classes import bits_per_token as bits_per_token
from seqjax.losses.classes import cross_entropy as cross_entropy
from seqjax.losses.classes import perplexity as perplexity
from seqjax.losses.classes import token_accuracy as token_accuracy
from seqjax.losses.classes import token_cross_entropy as token_cross_entropy
from seqjax.losses.linear import Choices as Choices
from seqjax.losses.linear import linear_cross_entropy as linear_cross_entropy
from seqjax.losses.mean import Mean as Mean
from seqjax.losses.mean import mean_over as mean_over
from seqjax.losses.numbers import binary_cross_entropy as binary_cross_entropy
from seqjax.losses.numbers import mean_squared_error as mean_squared_error
