"""Types as a user's type checker sees them; pyright checks the assertions, and pytest that they run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import jax
import jax.numpy as jnp
import pytest

import seqjax as sj
from seqjax.cells.gru import GRUParams, GRUState
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.wrappers.dropout import DropoutState
from seqjax.wrappers.learned_state import LearnedStateParams
from seqjax.wrappers.stack import StackParams, StackState

KEY, XS = jax.random.key(0), jnp.ones((5, 2, 3))


def test_init_and_unroll_of_a_leaf_cell_are_typed():
    cell = sj.LSTM(4)
    params = cell.init(KEY, in_features=3)
    assert_type(params, LSTMParams)
    state, ys = sj.unroll(cell, params, XS)
    assert_type(state, LSTMState)
    assert_type(ys, jax.Array)
    assert_type(sj.unroll(cell, params, XS, state)[0].c, jax.Array)
    state, _ = cell.step(params, state, XS[0])
    assert_type(state, LSTMState)


def test_wrappers_pass_the_types_of_the_wrapped_cell_on():
    dropout = sj.Dropout(sj.GRU(4), rate=0.5)
    params = dropout.init(KEY, in_features=3)
    assert_type(params, GRUParams)
    assert_type(sj.unroll(dropout, params, XS, key=KEY)[0], DropoutState)
    learned = sj.LearnedState(sj.GRU(3))
    assert_type(learned.init(KEY, in_features=3), LearnedStateParams)
    assert_type(sj.unroll(learned, learned.init(KEY, in_features=3), XS)[0], GRUState)
    stack = sj.Stack((dropout, learned))
    assert_type(stack.init(KEY, in_features=3), StackParams)
    assert_type(sj.unroll(stack, stack.init(KEY, in_features=3), XS, key=KEY)[0], StackState)


def test_a_misspelt_name_is_an_error_for_the_type_checker():
    with pytest.raises(AttributeError, match="LSMT"):
        sj.LSMT  # pyright: ignore[reportAttributeAccessIssue] # noqa: B018 - the mistake
