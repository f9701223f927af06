import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from seqjax.training import TrainState, fit, keep_options


@dataclasses.dataclass(frozen=True)
class Options:
    """What a script takes."""

    rate: float = 0.1
    words: tuple[str, ...] = ("a", "b")
    run: Path = Path("here")
    display: bool = True


class Data:
    """One batch without end."""

    def __iter__(self):
        return self

    def __next__(self):
        return jnp.ones(())

    def get_state(self):
        return {}

    def set_state(self, state):
        assert state == {}


def trained(folder, options):
    keep_options(folder, options)
    loss = lambda params, carry, batch, key: ((params - batch) ** 2, (carry, {}))
    optimizer = optax.sgd(options.rate)
    state = TrainState.create(jnp.zeros(()), optimizer, jax.random.key(0))
    return fit(loss, optimizer, state, Data(), steps=3, directory=folder, display=False)


def test_a_run_is_gone_on_with_by_its_own_options_alone(tmp_path):
    first = trained(tmp_path / "run", Options())
    stored = json.loads((tmp_path / "run" / "options.json").read_text("utf-8"))
    assert stored == {"rate": 0.1, "words": ["a", "b"]}
    again = trained(tmp_path / "run", Options(run=Path("there"), display=False))
    assert again.state.params == first.state.params
    with pytest.raises(
        ValueError, match=r"run holds a run with rate 0\.1, and this one has rate 0\.2"
    ):
        trained(tmp_path / "run", Options(rate=0.2))
    both = r"holds a run with rate 0\.1, words \['a', 'b'\], and this one has rate 1\.0, words \[\]"
    with pytest.raises(ValueError, match=both):
        keep_options(tmp_path / "run", Options(rate=1.0, words=()))
    with pytest.raises(ValueError, match=r"with seed None, and this one has seed 1"):
        keep_options(tmp_path / "run", vars(Options()) | {"seed": 1})
    keep_options(tmp_path / "run", Options(rate=0.2), free=("rate", "run", "display"))


def test_before_anything_is_trained_the_newest_options_count(tmp_path):
    keep_options(tmp_path, Options())
    (tmp_path / "checkpoints").mkdir()  # as a `fit` leaves it that fails at its first step
    keep_options(tmp_path, Options(rate=0.2))
    assert json.loads((tmp_path / "options.json").read_text("utf-8"))["rate"] == 0.2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (3, "keep_options: options: expected a dataclass or a dict, got 3"),
        ({"cell": object()}, "to_config: <object object .* has no form in JSON"),
    ],
)
def test_what_cannot_be_kept_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        keep_options(tmp_path, options)
    assert not (tmp_path / "options.json").exists()
