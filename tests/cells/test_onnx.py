"""LSTMs with peepholes, and with coupled gates, against ONNX Runtime, the one peer that has them."""

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lstm import CIFGParams, CIFGState, PeepholeLSTMParams, PeepholeLSTMState

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("quick_compilation")]

TIME, BATCH, IN_FEATURES, FEATURES = 5, 3, 2, 8


def draw(*shapes):
    """Float32 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [(0.8 * random.standard_normal(shape)).astype(np.float32) for shape in shapes]


def run_onnx(weights, xs, h, c, *, peepholes=None, input_forget=0):
    """Outputs and last memory of an ONNX LSTM; weights: W, U and b, its gates packed i, o, f, g."""
    W, U, b = weights
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    arrays = {
        "X": xs,
        "W": W.T[None].copy(),
        "R": U.T[None].copy(),
        "B": np.concatenate([b, np.zeros_like(b)])[None],
        "h": h[None],
        "c": c[None],
    }
    names = ["X", "W", "R", "B", "", "h", "c"]
    if peepholes is not None:
        arrays["P"] = peepholes[None]
        names.append("P")
    value = lambda name, shape: onnx.helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, shape
    )
    outputs = ["Y", "Y_h", "Y_c"]
    node = onnx.helper.make_node(
        "LSTM", names, outputs, hidden_size=h.shape[-1], input_forget=input_forget
    )
    graph = onnx.helper.make_graph(
        [node],
        "lstm",
        [value(name, array.shape) for name, array in arrays.items()],
        [value(name, None) for name in outputs],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8
    )
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y, _, last_c = session.run(None, arrays)
    return y[:, 0], last_c[0]


def test_peepholes_are_those_of_onnx():
    W, U, b, p, xs, h, c = draw(
        (IN_FEATURES, 4 * FEATURES),
        (FEATURES, 4 * FEATURES),
        (4 * FEATURES,),
        (3 * FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
        (BATCH, FEATURES),
    )

    def reordered(packed):
        i, f, g, o = np.split(packed, 4, axis=-1)
        return np.concatenate([i, o, f, g], axis=-1)

    p_i, p_f, p_o = np.split(p, 3)
    expected, last_c = run_onnx(
        map(reordered, (W, U, b)), xs, h, c, peepholes=np.concatenate([p_i, p_o, p_f])
    )
    params = PeepholeLSTMParams(*map(jnp.asarray, (W, U, b, p)))
    state = PeepholeLSTMState(jnp.asarray(h), jnp.asarray(c))
    state, ys = sj.unroll(sj.PeepholeLSTM(FEATURES), params, jnp.asarray(xs), state)
    # float32 on both sides, and sums in another order.
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, last_c, rtol=1e-5, atol=1e-6)


def test_coupled_gates_are_those_of_onnx():
    W, U, b, xs, h, c = draw(
        (IN_FEATURES, 3 * FEATURES),
        (FEATURES, 3 * FEATURES),
        (3 * FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
        (BATCH, FEATURES),
    )

    def reordered(packed):
        # ONNX computes i and takes f = 1 - i: σ(-a) = 1 - σ(a). Its own f is not read.
        f, g, o = np.split(packed, 3, axis=-1)
        return np.concatenate([-f, o, np.full_like(f, 7.0), g], axis=-1)

    expected, last_c = run_onnx(map(reordered, (W, U, b)), xs, h, c, input_forget=1)
    params = CIFGParams(*map(jnp.asarray, (W, U, b)))
    state = CIFGState(jnp.asarray(h), jnp.asarray(c))
    state, ys = sj.unroll(sj.CIFG(FEATURES), params, jnp.asarray(xs), state)
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, last_c, rtol=1e-5, atol=1e-6)
