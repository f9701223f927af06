import dataclasses

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import seqjax as sj
from seqjax.training import Checkpoints, TrainState, from_config, to_config

pytestmark = pytest.mark.usefixtures("standard_promotion")

CELLS = {
    "elman": sj.Elman(4, activation="relu"),
    "pre-activation": sj.PreActivationRNN(4),
    "irnn": sj.IRNN(4),
    "lstm": sj.LSTM(4, dtype=jnp.bfloat16),
    "gru": sj.GRU(4, recurrent_init=sj.initializers.ScaledIdentity(0.5)),
    "stack": sj.Stack((sj.GRU(3), sj.Residual(sj.Dropout(sj.LSTM(3), 0.25)))),
    "both": sj.Bidirectional(sj.GRU(2), sj.LSTM(2)),
}


def state_of(cell, seed=0):
    params = cell.init(jax.random.key(seed), 3)
    carry = cell.initial_state(params, (2,), key=jax.random.key(seed))
    optimizer = sj.optim.clipped_adamw(optax.constant_schedule(1e-3))
    state = TrainState.create(params, optimizer, jax.random.key(seed + 1), carry)
    return state._replace(step=jnp.array(7, jnp.int32))


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_state_comes_back_as_it_was(tmp_path, cell):
    state, facts = state_of(cell), {"tokens": 1.5, "data": {"position": 3}}
    Checkpoints(tmp_path).save(state, facts)
    back, told = Checkpoints(tmp_path).restore(state_of(cell, seed=5))
    assert told == facts
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jax.random.key_data(back.key).tolist() == jax.random.key_data(state.key).tolist()
    chex.assert_trees_all_equal(back._replace(key=0), state._replace(key=0))


def test_shapes_are_target_enough(tmp_path):
    state = state_of(sj.GRU(4))
    Checkpoints(tmp_path).save(state, {})
    shapes = jax.eval_shape(lambda: state)
    back, _ = Checkpoints(tmp_path).restore(shapes)
    chex.assert_trees_all_equal(back.params, state.params)


def test_the_newest_two_stay(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), state_of(sj.GRU(4))
    assert checkpoints.latest is None
    for step in (1, 2, 3):
        checkpoints.save(state._replace(step=jnp.array(step)), {})
    assert checkpoints.latest == 3
    assert {p.name for p in tmp_path.iterdir()} == {"2", "3"}


def test_another_model_is_refused(tmp_path):
    Checkpoints(tmp_path).save(state_of(sj.GRU(4)), {})
    with pytest.raises(ValueError, match="made by another model or optimizer"):
        Checkpoints(tmp_path).restore(state_of(sj.LSTM(4)))
    with pytest.raises(ValueError, match="made by another model or optimizer"):
        Checkpoints(tmp_path).restore(state_of(sj.GRU(5)))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        Checkpoints(tmp_path).restore(state_of(sj.GRU(4)))


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_configuration_comes_back_equal(cell):
    model = sj.models.LanguageModel(9, cell, 4, dropout=0.5)
    assert from_config(to_config(cell)) == cell
    assert from_config(to_config(model)) == model
    assert hash(from_config(to_config(model))) == hash(model)


@dataclasses.dataclass(frozen=True)
class Mine:
    size: int


def test_a_class_of_ones_own_is_made_again_only_when_it_is_named():
    config = to_config(Mine(3))
    with pytest.raises(ValueError, match="the class 'Mine' is not known"):
        from_config(config)
    assert from_config(config, known=(Mine,)) == Mine(3)


def test_a_value_without_a_form_in_json_is_refused():
    with pytest.raises(ValueError, match="has no form in JSON"):
        to_config({"f": lambda x: x})
