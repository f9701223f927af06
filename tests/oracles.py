"""What the library is held against: slow, obvious NumPy in float64, written from the papers.

Nothing here differentiates by itself and nothing is batched: one sequence x [time, in_features], one
loop over time, every sum in the order of its equation. Vectors are rows, as in the library.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


class Activation(NamedTuple):
    """φ, and its derivative φ' as a function of the pre-activation."""

    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array]


def sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a)."""
    return 1 / (1 + np.exp(-a))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "sigmoid": Activation(sigmoid, lambda a: sigmoid(a) * (1 - sigmoid(a))),
    "relu": Activation(lambda a: np.maximum(a, 0), lambda a: np.where(a > 0, 1.0, 0.0)),
    "identity": Activation(lambda a: a, lambda a: np.ones_like(a)),
}


class Gate(NamedTuple):
    """The weights of one gate: W [in_features, features], U [features, features], b [features]."""

    W: Array
    U: Array
    b: Array

    def __call__(self, x: Array, h: Array) -> Array:
        """X W + h U + b."""
        return x @ self.W + h @ self.U + self.b


def elman(weights: Gate, activation: str, x: Array, h: Array) -> Array:
    """h_t = φ(x_t W + h_{t-1} U + b) for t = 1 … T (Elman 1990): [time, features]."""
    hs = []
    for x_t in x:
        h = ACTIVATIONS[activation].value(weights(x_t, h))
        hs.append(h)
    return np.array(hs)


def preactivation(
    V: Array, W: Array, theta: Array, activation: str, input_activation: str, x: Array, h: Array
) -> Array:
    """h_t = ψ(x_t V) + φ(h_{t-1}) W - θ (Pascanu, Mikolov, Bengio 2013, equation 2)."""
    phi, psi = ACTIVATIONS[activation].value, ACTIVATIONS[input_activation].value
    hs = []
    for x_t in x:
        h = psi(x_t @ V) + phi(h) @ W - theta
        hs.append(h)
    return np.array(hs)


def lstm(gates: Mapping[str, Gate], x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """The hidden states and the memories of an LSTM (Gers, Schmidhuber, Cummins 2000).

    gates: input gate "i", forget gate "f", candidate "g", output gate "o".
    """
    hs, cs = [], []
    for x_t in x:
        i = sigmoid(gates["i"](x_t, h))
        f = sigmoid(gates["f"](x_t, h))
        g = np.tanh(gates["g"](x_t, h))
        o = sigmoid(gates["o"](x_t, h))
        c = f * c + i * g
        h = o * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.array(hs), np.array(cs)


def gru(gates: Mapping[str, Gate], inner_bias: Array, x: Array, h: Array) -> Array:
    """The hidden states of a GRU whose reset follows the recurrent matmul.

    gates: reset "r", update "z", candidate "n", whose own b lies outside the reset; `inner_bias` lies
    inside it.
    """
    hs = []
    for x_t in x:
        r = sigmoid(gates["r"](x_t, h))
        z = sigmoid(gates["z"](x_t, h))
        n = np.tanh(x_t @ gates["n"].W + gates["n"].b + r * (h @ gates["n"].U + inner_bias))
        h = (1 - z) * n + z * h
        hs.append(h)
    return np.array(hs)


def is_drawn_by(rule: str, matrix: Array) -> bool:
    """Whether a square matrix looks as the initialiser of that name promises.

    Of random entries no more can be said than their bound, and that they come near to it: all 64
    entries of a uniform [8, 8] matrix lie below 4/5 of the bound with probability 1e-6.
    """
    size = len(matrix)
    bounds = {"uniform_fan_in": 1 / np.sqrt(size), "glorot": np.sqrt(6 / (size + size))}
    if rule in bounds:
        largest = np.abs(matrix).max()
        return bool(0.8 * bounds[rule] < largest <= bounds[rule])
    if rule == "orthogonal":
        # Not the identity, which is orthogonal too.
        return np.allclose(matrix.T @ matrix, np.eye(size), atol=1e-5) and not np.allclose(
            matrix, np.eye(size)
        )
    return np.array_equal(matrix, {"identity": np.eye(size), "zeros": np.zeros((size, size))}[rule])


def finite_differences(
    loss: Callable[..., float], *arguments: Array, step: float = 1e-5
) -> tuple[Array, ...]:
    """(loss(… + step) - loss(… - step)) / (2 step), one entry at a time, for every argument.

    The error is about step² from what the series leaves out and 1e-16 / step from rounding: with
    1e-5 both are near 1e-10 for a loss and derivatives of order 1.
    """
    gradients = []
    for position, argument in enumerate(arguments):
        gradient = np.zeros_like(argument)
        for index in np.ndindex(argument.shape):
            moved = []
            for sign in (1, -1):
                nudged = argument.copy()
                nudged[index] += sign * step
                moved.append(loss(*arguments[:position], nudged, *arguments[position + 1 :]))
            gradient[index] = (moved[0] - moved[1]) / (2 * step)
        gradients.append(gradient)
    return tuple(gradients)


def jacobian(activation: str, a: Array, U: Array) -> Array:
    """∂s_j/∂s_{j-1} = diag(φ'(a_j)) Uᵀ, with entry [m, n] = ∂s_{j,m}/∂s_{j-1,n}."""
    return np.diag(ACTIVATIONS[activation].derivative(a)) @ U.T


def starts(t: int) -> Iterable[int]:
    """K = 1, …, t: the steps at which the weights had a say in s_t."""
    return range(1, t + 1)


def factors(k: int, t: int) -> Iterable[int]:
    """J = t, t-1, …, k+1: the steps between s_k and s_t, the latest leftmost."""
    return range(t, k, -1)


def double_sum(
    weights: Gate,
    activation: str,
    x: Array,
    s_0: Array,
    loss_gradients: Array,
    *,
    jacobian: Callable[[str, Array, Array], Array] = jacobian,
    starts: Callable[[int], Iterable[int]] = starts,
    factors: Callable[[int, int], Iterable[int]] = factors,
) -> Gate:
    """dL/dθ = Σ_t Σ_{k≤t} (∂L_t/∂s_t) (∏_{j=t…k+1} ∂s_j/∂s_{j-1}) (∂⁺s_k/∂θ), for θ = W, U, b.

    s_t = φ(a_t), a_t = x_t W + s_{t-1} U + b. loss_gradients: ∂L_t/∂s_t, [time, features]. ∂⁺ is the
    derivative with s_{k-1} held fixed. The three last arguments are the parts that are easily got
    wrong, so that a test can put a slip in the place of each.
    """
    time, size = len(x), len(weights.b)
    s, a = [s_0], [np.full(size, np.nan)]  # s[t] and a[t] for t = 0 … T; there is no a_0
    for t in range(1, time + 1):
        a.append(weights(x[t - 1], s[t - 1]))
        s.append(ACTIVATIONS[activation].value(a[t]))

    dW, dU, db = (np.zeros_like(w) for w in weights)
    for t in range(1, time + 1):
        for k in starts(t):
            row = loss_gradients[t - 1]
            for j in factors(k, t):
                row = row @ jacobian(activation, a[j], weights.U)
            # ∂⁺s_{k,m}/∂W_{p,q} = φ'(a_{k,m}) x_{k,p} [m = q], and so for U with s_{k-1} and b with 1.
            slope = ACTIVATIONS[activation].derivative(a[k])
            for q in range(size):
                for p in range(x.shape[1]):
                    dW[p, q] += row[q] * slope[q] * x[k - 1, p]
                for p in range(size):
                    dU[p, q] += row[q] * slope[q] * s[k - 1][p]
                db[q] += row[q] * slope[q]
    return Gate(dW, dU, db)


class Readout(NamedTuple):
    """The output layer: o = s V + c, V [features, outputs], c [outputs]."""

    V: Array
    c: Array


class LossAndGradients(NamedTuple):
    """A loss; ∂L_t/∂s_t of each step [time, features]; the gradients of the readout."""

    loss: float
    states: Array
    readout: Readout


def many_to_one(readout: Readout, s: Array, target: float) -> LossAndGradients:
    """One sigmoid output at the last step: L = -y log p - (1 - y) log(1 - p), p = σ(s_T V + c).

    σ' cancels what the cross-entropy divides by: ∂L/∂o = p - y. s: s_1 … s_T, [time, features].
    """
    o = (s[-1] @ readout.V + readout.c)[0]
    p = sigmoid(o)
    # -log p = log(1 + e^-o) and -log(1 - p) = log(1 + e^o), which are exact also where p rounds to 1.
    loss = target * np.logaddexp(0, -o) + (1 - target) * np.logaddexp(0, o)
    states = np.zeros_like(s)
    states[-1] = (p - target) * readout.V[:, 0]
    gradients = Readout(V=(p - target) * s[-1][:, None], c=np.array([p - target]))
    return LossAndGradients(float(loss), states, gradients)


def many_to_many(readout: Readout, s: Array, targets: Array) -> LossAndGradients:
    """A softmax output at every step: L = Σ_t -log p_{t, y_t}, p_t = softmax(s_t V + c).

    ∂L_t/∂o_t = p_t - e_{y_t}, with e_y the unit row vector. targets: [time], class numbers.
    """
    loss, states = 0.0, np.zeros_like(s)
    dV, dc = np.zeros_like(readout.V), np.zeros_like(readout.c)
    for t, y in enumerate(targets):
        o = s[t] @ readout.V + readout.c
        p = np.exp(o - o.max())
        p /= p.sum()
        loss -= np.log(p[y])
        error = p.copy()
        error[y] -= 1
        states[t] = error @ readout.V.T
        dV += np.outer(s[t], error)
        dc += error
    return LossAndGradients(float(loss), states, Readout(dV, dc))
