import contextlib
import dataclasses
import re
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
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


def cut(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])


def overwrite(file: Path) -> None:
    file.write_bytes(b"\xff" * file.stat().st_size)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_state_its_params_alone_and_its_configuration_come_back_as_they_were(tmp_path, cell):
    state, facts = state_of(cell), {"tokens": 1.5, "data": {"position": 3}}
    Checkpoints(tmp_path).save(state, facts)
    target = state_of(cell, seed=5)
    for of in (lambda tree: tree, lambda tree: jax.eval_shape(lambda: tree)):  # shapes are enough
        back, told = Checkpoints(tmp_path).restore(of(target))
        assert told == facts
        assert jax.tree.structure(back) == jax.tree.structure(state)
        assert jax.random.key_data(back.key).tolist() == jax.random.key_data(state.key).tolist()
        chex.assert_trees_all_equal(back._replace(key=0), state._replace(key=0))
        params = Checkpoints(tmp_path).restore_params(of(target.params))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
        assert jax.tree.structure(params) == jax.tree.structure(state.params)
        chex.assert_trees_all_equal(params, state.params)
    assert from_config(to_config(cell)) == cell
    if cell.causal:
        model = sj.models.LanguageModel(9, cell, 4, dropout=0.5)
        assert from_config(to_config(model)) == model
        assert hash(from_config(to_config(model))) == hash(model)


def test_the_newest_two_stay_and_params_leave_the_manager_usable(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), state_of(sj.GRU(4))
    assert checkpoints.latest is None
    for step in (1, 2, 3):
        params = jax.tree.map(lambda p, step=step: p + step, state.params)
        checkpoints.save(state._replace(params=params, step=jnp.array(step)), {})
        chex.assert_trees_all_equal(checkpoints.restore_params(state.params), params)
        assert checkpoints.latest == int(checkpoints.restore(state)[0].step) == step
    assert {p.name for p in tmp_path.iterdir()} == {"2", "3"}


def test_another_model_is_an_error_that_names_the_difference(tmp_path):
    state = state_of(sj.GRU(4))
    for name, target in (("restore", state), ("restore_params", state.params)):
        with pytest.raises(ValueError, match=f"{name}: .* holds no checkpoint"):
            getattr(Checkpoints(tmp_path), name)(target)
    Checkpoints(tmp_path).save(state, {})
    start = "made by another model or optimizer than .*: "
    half = state._replace(carry=jax.tree.map(lambda h: h.astype(jnp.bfloat16), state.carry))
    for target, message in (
        (state_of(sj.LSTM(4)), ""),
        (state_of(sj.GRU(5)), ""),
        (half, r"carry.h is float32\[2, 4\] there, bfloat16"),
    ):
        with pytest.raises(ValueError, match=start + message):
            Checkpoints(tmp_path).restore(target)
    for cell, message in (
        (sj.GRU(5), r"float32\[15\] here"),
        (sj.GRU(4, param_dtype=jnp.bfloat16), "bfloat16"),
        (sj.Elman(4), r"float32\[4\] here"),
        (sj.Stack((sj.GRU(4),)), "missing here"),
    ):
        with pytest.raises(
            ValueError, match=rf"{start}params.bias is float32\[12\] there, {message}"
        ):
            Checkpoints(tmp_path).restore_params(state_of(cell).params)


def test_params_that_are_stored_but_not_in_the_target_are_an_error(tmp_path):
    free, tied = (sj.models.LanguageModel(9, sj.GRU(4), 4, tied=t) for t in (False, True))
    state = state_of(sj.GRU(4))._replace(params=free.init(jax.random.key(0)))
    Checkpoints(tmp_path).save(state, {})
    with pytest.raises(ValueError, match=r"params.readout.kernel is .* there, missing here"):
        Checkpoints(tmp_path).restore_params(tied.init(jax.random.key(0)))


METADATA = ("state", "_METADATA")
BOTH = ("restore", "restore_params")


@pytest.mark.parametrize(
    ("file", "damage", "methods", "reason"),
    [
        (("facts",), shutil.rmtree, BOTH[:1], """KeyError: 'Item "facts" was not found """),
        (("facts", "metadata"), cut, BOTH[:1], "JSONDecodeError: Unterminated string "),
        (("facts", "metadata"), Path.unlink, BOTH[:1], "FileNotFoundError: File "),
        (("state",), shutil.rmtree, BOTH, "FileNotFoundError: Metadata file "),
        (METADATA, cut, BOTH, "JSONDecodeError: Unterminated string "),
        (METADATA, overwrite, BOTH, "UnicodeDecodeError: 'utf-8' codec can't decode "),
        (("state", "_sharding"), cut, BOTH, "ValueError: FAILED_PRECONDITION: Error reading "),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_one_before(tmp_path, file, damage, methods, reason):
    state = state_of(sj.GRU(4))
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        for step in (3, 7):
            checkpoints.save(state._replace(step=jnp.array(step)), {"tokens": step})
    damage(tmp_path.joinpath("7", *file))
    targets = {"restore": state, "restore_params": state.params}
    start = re.escape(f"the checkpoint {tmp_path}/7 cannot be read ({reason}")
    end = r"\); where it is damaged, deleting it goes on from the one before, 3$"
    for name in methods:
        with pytest.raises(ValueError, match=f"^{name}: {start}.*{end}"):  # . is no line's end
            getattr(Checkpoints(tmp_path), name)(targets[name])
    shutil.rmtree(tmp_path / "7")
    back, facts = Checkpoints(tmp_path).restore(state)
    assert (int(back.step), facts) == (3, {"tokens": 3})


def test_a_damaged_checkpoint_that_is_the_only_one_begins_anew_once_deleted(tmp_path):
    state = state_of(sj.GRU(4))
    Checkpoints(tmp_path).save(state, {})
    cut(tmp_path.joinpath("7", *METADATA))
    with pytest.raises(ValueError, match=r"; where it is damaged, deleting it begins anew$"):
        Checkpoints(tmp_path).restore(state)
    shutil.rmtree(tmp_path / "7")
    assert Checkpoints(tmp_path).latest is None


@dataclasses.dataclass(frozen=True)
class Mine:
    size: int


def test_what_has_a_form_in_json_comes_back_and_anything_else_is_an_error():
    config = to_config(Mine(3))
    with pytest.raises(ValueError, match="the class 'Mine' is not known"):
        from_config(config)
    assert from_config(config, known=(Mine,)) == Mine(3)
    assert to_config({"a": np.int64(3), "b": np.float32(0.5)}) == {"a": 3, "b": 0.5}
    for value in (lambda x: x, jnp.ones(3), np.ones(3), dict):
        with pytest.raises(ValueError, match="has no form in JSON"):
            to_config({"value": value})
