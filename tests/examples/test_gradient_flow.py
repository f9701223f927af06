import dataclasses
import itertools

import numpy as np
import pytest

import seqjax as sj

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from examples import gradient_flow

pytestmark = pytest.mark.usefixtures("standard_promotion", "quick_compilation")

SMALL = gradient_flow.Options(
    steps=12,
    features=6,
    batch=4,
    updates=3,
    descent_steps=6,
    descent_updates=4,
    learning_rates=(0.01, 0.1),
    truncated=4,
)


def test_both_pictures_are_drawn_and_the_numbers_printed(tmp_path, monkeypatch, capsys):
    few = {"Elman, tanh": sj.Elman(6), "SkipRNN": sj.SkipRNN(6, skip=3)}
    monkeypatch.setattr(gradient_flow, "networks", lambda features, steps: few)
    two = lambda steps: dict(itertools.islice(remedies(steps).items(), 2))
    remedies = gradient_flow.remedies
    monkeypatch.setattr(gradient_flow, "remedies", two)
    gradient_flow.main(dataclasses.replace(SMALL, into=tmp_path / "pictures"))
    for name in ("flow", "remedies"):
        assert (tmp_path / "pictures" / f"{name}.png").read_bytes()[1:4] == b"PNG"
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*few, *gradient_flow.remedies(4)))


def test_the_logistic_function_forgets_before_tanh_and_an_irnn_keeps_the_gradient():
    cells = gradient_flow.networks(6, 12)
    norms = {
        name: gradient_flow.gradient_norms(
            cells[name], gradient_flow.start(cells[name], SMALL), SMALL
        )
        for name in ("Elman, logistic", "Elman, tanh", "IRNN")
    }
    logistic, tanh, irnn = norms.values()
    assert all(n[0] == 1 and n.shape == (12,) for n in norms.values())
    # ∂h_t/∂h_{t-1} = diag(φ') Uᵀ with U orthogonal: at most ¼ a step. That of the IRNN is the identity
    # but for units that are off, as they may be in the first steps of a sequence.
    assert np.all(logistic <= 0.25 ** np.arange(12) * 1.001)
    assert np.all(tanh[1:] > logistic[1:])
    assert np.all(irnn[:8] > 0.9)
    assert np.all(irnn[1:8] > tanh[1:8])


def test_every_network_and_remedy_of_the_pictures_can_be_trained_with():
    cells = gradient_flow.networks(6, 12)
    assert len({repr(cell) for cell in cells.values()}) == len(cells) == 9
    assert len(gradient_flow.remedies(10)) == 5
