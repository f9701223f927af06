"""PyTorch: `nn.LSTM` or `nn.GRU` token by token in a Python loop, as its examples write."""

from typing import Any

import torch

from benchmarks.generate_problem import BEAM, GREEDY, Case, Sizes, model_of
from benchmarks.peers.problem import Prepared
from benchmarks.peers.torch import CELLS, unpacked


def prepare(case: Case, sizes: Sizes, device: str = "cpu") -> Prepared:
    """A call that writes; its ids [tokens, batch], of beam search the best ones."""
    to = torch.device("cpu" if device == "cpu" else "cuda")
    drawn, H = model_of(case, sizes), sizes.features
    embed = torch.nn.Embedding(case.vocabulary, H).to(to)
    layers = getattr(torch.nn, CELLS[case.cell])(H, H, num_layers=sizes.layers).to(to)
    readout = torch.nn.Linear(H, case.vocabulary).to(to)
    weights = [drawn.embedding, *(a for layer in drawn.layers for a in unpacked(layer))]
    weights += [drawn.kernel.T.copy(), drawn.bias]
    parameters = [p for module in (embed, layers, readout) for p in module.parameters()]
    with torch.no_grad():
        for parameter, array in zip(parameters, weights, strict=True):
            parameter.copy_(torch.from_numpy(array))
    prompt = torch.from_numpy(drawn.prompt).long().to(to)

    def step(token: Any, state: Any) -> tuple[Any, Any]:
        """Logits [rows, vocabulary], and the state."""
        y, state = layers(embed(token)[None], state)
        return readout(y[0]), state

    def write() -> Any:
        token, state, ids = prompt, None, []
        for _ in range(sizes.tokens):
            logits, state = step(token, state)
            if case.way == GREEDY:
                token = logits.argmax(-1)
            else:
                values, indices = logits.topk(min(sizes.top_k, case.vocabulary))
                choice = torch.multinomial(values.softmax(-1), 1)
                token = indices.gather(-1, choice)[:, 0]
            ids.append(token)
        return torch.stack(ids)

    def search() -> Any:
        batch, beams = case.batch, sizes.beams
        rows = torch.arange(batch, device=to)[:, None]
        scores = torch.full((batch, beams), -torch.inf, device=to)
        scores[:, 0] = 0  # one beginning, not several equal
        token, state = prompt[:, None].expand(batch, beams), None
        texts = torch.zeros((batch, beams, sizes.tokens), dtype=torch.long, device=to)
        for number in range(sizes.tokens):
            logits, state = step(token.reshape(-1), state)
            log_p = logits.log_softmax(-1).view(batch, beams, -1)
            scores, index = (scores[..., None] + log_p).view(batch, -1).topk(beams)
            parent, token = index // case.vocabulary, index % case.vocabulary
            flat = (rows * beams + parent).view(-1)
            pick = lambda leaf, flat=flat: leaf.index_select(1, flat)
            state = tuple(map(pick, state)) if isinstance(state, tuple) else pick(state)
            texts = texts[rows, parent]
            texts[:, :, number] = token
        return texts[:, 0].T

    def run() -> Any:
        with torch.inference_mode():
            ids = search() if case.way == BEAM else write()
        if device != "cpu":
            torch.cuda.synchronize()
        return ids

    return Prepared(run, lambda ids: [ids.cpu().numpy()])
