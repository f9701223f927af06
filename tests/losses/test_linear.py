"""The readout and its loss in one: beside the logits written out, and PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from seqjax import losses
from seqjax.losses import linear

full = functools.partial(pytest.param, marks=pytest.mark.full)


@pytest.fixture
def pieces(monkeypatch):
    """Logits of two steps of three tokens at once: seven steps are four pieces, the last one short."""
    monkeypatch.setattr(linear, "LOGITS", 2 * 3 * 11)


def problem(shape=(7, 3), features=5, classes=11, dtype=jnp.float32):
    """Ys, V, b, targets and a mask that is False at some tokens."""
    rng = np.random.default_rng(0)
    ys, kernel, bias = (
        jnp.asarray(rng.normal(size=size), dtype)
        for size in ((*shape, features), (features, classes), classes)
    )
    targets = jnp.asarray(rng.integers(0, classes, size=shape), jnp.int32)
    return ys, kernel, bias, targets, jnp.asarray(rng.random(shape) < 0.7)


def written_out(ys, kernel, bias, targets, mask=None):
    """The same from all logits at once."""
    logits = ys @ kernel + jnp.broadcast_to(bias, (*ys.shape[:-1], bias.size))
    return losses.Choices(
        losses.mean_over(losses.token_cross_entropy(logits, targets, mask=mask), mask),
        losses.mean_over(losses.token_accuracy(logits, targets, mask=mask), mask),
    )


def loss_of(choices, targets, mask=None, **options):
    """The mean loss as a function of what has a gradient, with the sums beside it."""

    def loss(weights):
        ys, kernel, bias = weights
        found = choices(ys, kernel, bias, targets, mask=mask, **options)
        return found.nats.value, found

    return loss


def temporary_bytes(gradient, weights):
    """What the compiled gradient holds beside its arguments and results."""
    analysis = jax.jit(gradient).lower(weights).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


SHAPES = [(7, 3), (), (0, 3), *(full(shape) for shape in [(7,), (1, 1), (7, 0), (4, 3, 2)])]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_cross_entropy_of_the_logits(pieces, shape, masked):
    *weights, targets, mask = problem(shape)
    mask = mask if masked else None
    both = [
        jax.jit(jax.value_and_grad(loss_of(choices, targets, mask), has_aux=True))(tuple(weights))
        for choices in (losses.linear_cross_entropy, written_out)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), *both)


def test_how_many_pieces_there_are_changes_nothing(monkeypatch):
    *weights, targets, mask = problem((9, 4))
    found = []
    for most in (1, 200, 10**6):
        monkeypatch.setattr(linear, "LOGITS", most)
        loss = loss_of(losses.linear_cross_entropy, targets, mask)
        found.append(jax.jit(jax.grad(loss, has_aux=True))(tuple(weights)))
    for other in found[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found[0], other
        )


def test_both_modes_and_second_derivatives_in_float64(pieces, x64):
    *weights, targets, mask = problem(dtype=jnp.float64)
    mean = loss_of(losses.linear_cross_entropy, targets, mask)
    loss = jax.jit(lambda *weights: mean(weights)[0])
    check_grads(loss, weights, order=2, modes=("fwd", "rev"))


def test_vmap_is_one_after_another(pieces):
    ys, kernel, bias, targets, _ = problem()
    kernels = jnp.stack([kernel, 2 * kernel])
    nats = lambda kernel: losses.linear_cross_entropy(ys, kernel, bias, targets).nats.total
    gradient = jax.jit(jax.grad(nats))
    alone = jnp.stack([gradient(kernel) for kernel in kernels])
    np.testing.assert_allclose(jax.vmap(gradient)(kernels), alone, rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing(pieces):
    ys, kernel, bias, targets, mask = problem()
    assert not mask.all()
    spoiled = jnp.where(mask[..., None], ys, jnp.nan), kernel, bias
    loss = loss_of(losses.linear_cross_entropy, jnp.where(mask, targets, -1), mask)
    (_, found), gradient = jax.value_and_grad(loss, has_aux=True)(spoiled)
    loss = loss_of(losses.linear_cross_entropy, targets, mask)
    (_, expected), wanted = jax.value_and_grad(loss, has_aux=True)((ys, kernel, bias))
    jax.tree.map(np.testing.assert_array_equal, (found, gradient), (expected, wanted))
    assert np.all(np.asarray(gradient[0])[~np.asarray(mask)] == 0)


@pytest.mark.parametrize("target", [-1, 11])
def test_a_target_that_is_no_class_spoils_loss_and_gradient(pieces, target):
    *weights, targets, _ = problem()
    loss = loss_of(losses.linear_cross_entropy, targets.at[2, 1].set(target))
    (value, found), (d_ys, d_kernel, _) = jax.value_and_grad(loss, has_aux=True)(tuple(weights))
    assert np.isnan(value)
    assert np.isfinite(found.accuracy.value)
    assert np.isnan(d_kernel).all()
    assert np.isnan(d_ys[2, 1]).all()
    assert np.isfinite(d_ys[0]).all()


def test_among_equal_logits_the_first_is_the_choice():
    ys, kernel = jnp.ones((2, 1)), jnp.zeros((1, 4))
    found = losses.linear_cross_entropy(ys, kernel, jnp.zeros(4), jnp.array([0, 1]))
    assert found.accuracy.total == 1


def test_bfloat16_operands_are_summed_in_float32(pieces):
    *weights, targets, mask = problem((64, 3), features=32)
    gradient = lambda dtype: jax.jit(
        jax.grad(loss_of(losses.linear_cross_entropy, targets, mask, dtype=dtype), has_aux=True)
    )(tuple(weights))[0]
    for a, b in zip(gradient(jnp.float32), gradient(jnp.bfloat16), strict=True):
        assert b.dtype == jnp.float32
        assert np.linalg.norm(a - b) < 0.01 * np.linalg.norm(a)


def test_params_of_bfloat16_have_gradients_of_their_own_dtype(pieces):
    *weights, targets, mask = problem(dtype=jnp.bfloat16)
    loss = loss_of(losses.linear_cross_entropy, targets, mask)
    (value, _), gradient = jax.eval_shape(jax.value_and_grad(loss, has_aux=True), tuple(weights))
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in gradient} == {jnp.dtype(jnp.bfloat16)}


def test_no_logits_of_all_steps_are_made(monkeypatch):
    monkeypatch.setattr(linear, "LOGITS", 2**18)
    all_logits = 4 * 64 * 32 * 4096
    *weights, targets, _ = problem((64, 32), features=8, classes=4096)
    gradient = lambda choices: jax.grad(loss_of(choices, targets), has_aux=True)
    bytes_of = lambda choices: temporary_bytes(gradient(choices), tuple(weights))
    assert bytes_of(losses.linear_cross_entropy) < all_logits / 4
    assert bytes_of(written_out) > all_logits  # or the first says nothing


@pytest.mark.peer
def test_it_is_that_of_pytorch(pieces):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make peers")
    *weights, targets, _ = problem()
    loss = loss_of(losses.linear_cross_entropy, targets)
    ours, _ = jax.grad(loss, has_aux=True)(tuple(weights))
    ys, kernel, bias = (torch.tensor(np.asarray(w), requires_grad=True) for w in weights)
    logits = ys @ kernel + bias
    labels = torch.tensor(np.asarray(targets), dtype=torch.long)
    torch.nn.functional.cross_entropy(logits.reshape(-1, 11), labels.reshape(-1)).backward()
    for a, b in zip(ours, (ys.grad, kernel.grad, bias.grad), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_argument_that_does_not_fit_raises():
    ys, kernel, bias, targets, mask = problem()
    for arguments, message in [
        (
            (ys[..., 1:], kernel, bias, targets),
            r"ys has shape \(7, 3, 4\); expected \[\*batch, 5\]",
        ),
        ((ys, kernel, bias[1:], targets), r"bias has shape \(10,\) but kernel has \(5, 11\)"),
        ((ys, kernel, bias, targets[1:]), r"targets has shape \(6, 3\) but ys has \(7, 3, 5\)"),
        ((ys, kernel, bias, targets.astype(ys.dtype)), "targets is float32; expected integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            losses.linear_cross_entropy(*arguments)
    with pytest.raises(ValueError, match=r"mask is int32; expected bool"):
        losses.linear_cross_entropy(ys, kernel, bias, targets, mask=mask.astype(jnp.int32))
