import dataclasses
import json

import numpy as np
import pytest
import tyro

from examples import forecast

pytestmark = pytest.mark.usefixtures("quick_compilation")


def table(path, rows=120, seed=0):
    """A CSV of two columns that drift, and what is in it."""
    draw = np.random.default_rng(seed)
    t = np.arange(rows)
    values = np.stack([0.1 * t + np.sin(t / 2), 5 * np.cos(t / 3)], axis=1)
    values = np.round(values + 0.3 * draw.normal(size=values.shape), 4)
    lines = [f"2020-01-{i},{a},{b}" for i, (a, b) in enumerate(values.tolist())]
    path.write_text("\n".join(["date,load,heat", *lines]) + "\n", "utf-8")
    return values


def tiny(data, run, **others):
    rows = {"train": 80, "dev": 20, "test": 20, "past": 10, "horizon": 5, "season": 3}
    small = forecast.Options(data=data, run=run, features=4, steps=2, batch=4, display=False)
    return dataclasses.replace(small, **(rows | others))


def test_baselines_repeat_what_they_say():
    t, season = np.arange(30.0), np.array([3.0, -1.0, 4.0, 1.0])
    series = (2 * t + season[t.astype(int) % 4])[:, None, None] * np.array([1.0, -2.0])
    past, future = series[:20], series[20:]
    found = forecast.baselines(past, horizon=10, season=4)
    assert (found["repeat last"] == past[-1]).all()
    again = [past[16 + h % 4] for h in range(10)]
    np.testing.assert_array_equal(found["repeat season"], again)
    np.testing.assert_allclose(found["season and growth"], future, rtol=1e-12)
    assert list(forecast.baselines(past, horizon=10, season=0)) == ["repeat last"]
    assert list(forecast.baselines(past, horizon=10, season=20)) == ["repeat last"]


@pytest.mark.full
def test_the_rise_that_last_year_misses_is_learned_and_the_same_call_goes_on(tmp_path, capsys):
    options = forecast.Options(run=tmp_path, steps=300, display=False)
    result = forecast.main(options)
    assert result["mse"] < result["repeat season mse"] / 4 < result["repeat last mse"] / 4
    assert result["mae of CO2"] < 1.2  # parts per million
    assert (tmp_path / "forecast.png").stat().st_size > 5000
    assert forecast.main(options) == result  # nothing is left to do
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 300
    assert "repeat season: mse 0.02" in capsys.readouterr().out


def test_ones_own_table_is_cut_by_rows_and_scaled_by_its_training_part(tmp_path):
    values = table(tmp_path / "my.csv")
    others = {"layers": 2, "dropout": 0.1}
    result = forecast.main(tiny(tmp_path / "my.csv", tmp_path / "run", **others))
    z = (values - values[:80].mean(axis=0)) / values[:80].std(axis=0)
    # The first window reads rows 90 to 99, of the development part, and predicts 100 to 104.
    errors = [z[now + h] - z[now - 1] for now in range(100, 116) for h in range(5)]
    assert result["repeat last mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)
    own = np.mean(np.abs(errors), axis=0) * values[:80].std(axis=0)
    assert result["repeat last mae of load"] == pytest.approx(own[0], rel=1e-5)
    assert result["repeat last mae of heat"] == pytest.approx(own[1], rel=1e-5)
    first, second = 4 * 4 * (2 + 4 + 1), 4 * 4 * (4 + 4 + 1)
    assert result["parameters"] == first + second + (4 + 1) * 2 * 5


@pytest.mark.full
def test_what_is_counted_from_the_last_row_changes_the_network_alone(tmp_path):
    table(tmp_path / "my.csv")
    runs = [
        forecast.main(tiny(tmp_path / "my.csv", tmp_path / level, level=level, columns=("heat",)))
        for level in ("all", "target", "none")
    ]
    of_baselines = [name for name in runs[0] if "repeat" in name or "season" in name]
    assert len(of_baselines) == 9
    for run in runs[1:]:
        expected = [runs[0][name] for name in of_baselines]
        assert [run[name] for name in of_baselines] == pytest.approx(expected, rel=1e-5)
    assert len({round(run["mse"], 3) for run in runs}) == 3


def test_a_bad_value_is_named_and_rows_are_counts_or_shares(tmp_path):
    table(tmp_path / "my.csv")
    with pytest.raises(ValueError, match="all integers, or shares, all floats"):
        forecast.main(tiny(tmp_path / "my.csv", tmp_path / "run", train=0.5))
    with (tmp_path / "my.csv").open("a", encoding="utf-8") as file:
        file.write("2020-01-120,1.0,none\n")
    with pytest.raises(ValueError, match=r"my\.csv, line 122: column 'heat'.*'none'"):
        forecast.main(tiny(tmp_path / "my.csv", tmp_path / "run"))


@pytest.mark.full
def test_a_value_that_is_missing_is_filled_or_its_row_left_out_as_one_says(tmp_path):
    values = table(tmp_path / "my.csv")
    lines = (tmp_path / "my.csv").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "my.csv").write_text(
        "".join([*lines[:-2], "2020-01-118,,1.0\n", lines[-1]]), "utf-8"
    )
    between = [(values[117, 0] + values[119, 0]) / 2, 1.0]
    expected = {
        "interpolate": (20, np.concatenate([values[:118], [between], values[119:]])),
        "skip": (19, np.delete(values, 118, axis=0)),
    }
    for bad, (rows, seen) in expected.items():
        result = forecast.main(tiny(tmp_path / "my.csv", tmp_path / bad, bad=bad, test=rows))
        z = (seen - seen[:80].mean(axis=0)) / seen[:80].std(axis=0)
        starts = range(100, len(z) - 4)
        errors = [z[now + h] - z[now - 1] for now in starts for h in range(5)]
        assert result["repeat last mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)


def test_rows_are_given_as_counts_or_as_shares():
    counts = tyro.cli(forecast.Options, args=["--train", "8640", "--dev", "2880", "--test", "2880"])
    assert [type(n) for n in (counts.train, counts.dev, counts.test)] == [int] * 3
    shares = tyro.cli(forecast.Options, args=["--train", "0.5", "--columns", "a", "b"])
    assert (shares.train, shares.columns) == (0.5, ("a", "b"))
