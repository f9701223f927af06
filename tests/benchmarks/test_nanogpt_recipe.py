import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from benchmarks import nanogpt_recipe, shakespeare  # noqa: E402 - it needs torch

pytestmark = pytest.mark.peer

TINY = nanogpt_recipe.Recipe(layers=2, heads=2, width=8, context=5, batch=3)


def tiny_model() -> nanogpt_recipe.Transformer:
    torch.manual_seed(0)
    return nanogpt_recipe.Transformer(TINY, vocabulary=11)


def test_the_published_size():
    model = nanogpt_recipe.Transformer(nanogpt_recipe.Recipe(), vocabulary=65)
    width, layers = 128, 4
    per_layer = 2 * width + (3 + 1 + 4 + 4) * width**2
    expected = (65 + 64) * width + layers * per_layer + width
    assert sum(weight.numel() for weight in model.parameters()) == expected


def test_a_character_does_not_see_those_after_it():
    model = tiny_model()
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    other = torch.tensor([[1, 2, 3, 9, 9]])
    torch.testing.assert_close(model(ids)[:, :3], model(other)[:, :3])
    assert not torch.allclose(model(ids)[:, 3:], model(other)[:, 3:])


def test_the_learning_rate_rises_and_falls():
    recipe = nanogpt_recipe.Recipe()
    rates = [nanogpt_recipe.learning_rate(recipe, i) for i in range(recipe.iterations)]
    assert max(rates) == rates[100] == pytest.approx(1e-3)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[1050] == pytest.approx((1e-3 + 1e-4) / 2)
    assert rates[-1] == pytest.approx(1e-4, rel=1e-4)


def test_only_matrices_decay():
    decayed, others = nanogpt_recipe.make_optimizer(tiny_model(), TINY).param_groups
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    assert {weight.dim() for weight in decayed["params"]} == {2}
    assert {weight.dim() for weight in others["params"]} == {1}


@pytest.mark.parametrize("length", [11, 13, 4])
def test_the_whole_text_is_scored_once(length):
    """Against a loop over single characters, with the window that each stands in."""
    model = tiny_model()
    ids = torch.randint(11, (length,))
    total = 0.0
    for position in range(1, length):
        start = (position - 1) // TINY.context * TINY.context
        log_probs = torch.log_softmax(model(ids[None, start:position])[0, -1], dim=-1)
        total -= log_probs[ids[position]].item()
    loss = nanogpt_recipe.whole_text_loss(model, TINY, ids)
    assert loss == pytest.approx(total / (length - 1), rel=1e-5)


def test_a_batch_pairs_each_character_with_the_next():
    inputs, targets = nanogpt_recipe.draw_batch(TINY, torch.arange(6 + 1))
    assert inputs.shape == targets.shape == (3, 5)
    assert torch.equal(inputs + 1, targets)


@pytest.mark.full
def test_two_updates_of_the_recipe(monkeypatch):
    # Threads that wait for one another are slow where other tests run beside this one.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (run,) = shakespeare.run_peer(shakespeare.Options(peer_iterations=2))
    assert [point["step"] for point in run["curve"]] == [0, 2]
    assert run["recipe_nats"] == run["curve"][-1]["nats"]
    assert run["curve"][-1]["nats"] < run["curve"][0]["nats"]
    assert run["nats"] == pytest.approx(run["recipe_nats"], abs=0.05)
    assert 0 < run["curve"][0]["seconds"] <= run["curve"][1]["seconds"] <= run["seconds"]
    assert (
        shakespeare.describe_peer(shakespeare.Options(), [run])["budget_seconds"] == run["seconds"]
    )
