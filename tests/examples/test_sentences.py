import jax.numpy as jnp

from examples import sentences


def test_words_are_one_hot_and_time_comes_first():
    batch = sentences.encode({"rat mat cat": True, "cat cat cat": False})
    cat, mat, rat = jnp.eye(3)
    assert batch.words[:, 0].tolist() == jnp.stack([rat, mat, cat]).tolist()
    assert batch.words[:, 1].tolist() == jnp.stack([cat, cat, cat]).tolist()
    assert batch.labels.tolist() == [True, False]


def test_every_sentence_gets_its_label_with_a_probability_above_095(capsys):
    p = sentences.main(sentences.Options(display=False))
    assert p["cat mat rat"] > 0.95
    assert p["rat rat mat"] > 0.95
    assert p["mat mat cat"] < 0.05
    shown = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:]]
    labels = {"cat mat rat": "1", "rat rat mat": "1", "mat mat cat": "0"}
    assert shown == [[sentence, labels[sentence], f"{p[sentence]:.3f}"] for sentence in labels]


def test_without_training_no_sentence_is_decided():
    p = sentences.main(sentences.Options(steps=1, display=False))
    assert all(0.05 < value < 0.95 for value in p.values())
