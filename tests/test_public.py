"""What the package shows to the world: every public name is documented, and importing it is light."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import seqjax

MODULES = ["seqjax"] + [
    module.name for module in pkgutil.walk_packages(seqjax.__path__, prefix="seqjax.")
]


def public_members(module):
    """Classes and functions that the module defines, and the methods that its classes define."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if not inspect.isclass(value) and not callable(value):
            continue
        yield name, value
        for attribute, member in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if not attribute.startswith("_") and inspect.isfunction(function):
                yield f"{name}.{attribute}", member


@pytest.mark.parametrize("name", MODULES)
def test_every_public_symbol_has_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    missing = [
        f"{name}.{member}"
        for member, value in public_members(module)
        if not getattr(value, "__doc__", None)
    ]
    assert not missing


def test_the_names_that_other_code_depends_on_are_there():
    cells = {"Elman", "PreActivationRNN", "IRNN", "SkipRNN", "ClockworkRNN"}
    cells |= {"LSTM", "PeepholeLSTM", "CIFG", "SLSTM", "GRU", "ChoGRU", "MGU"}
    cells |= {"DiagonalGRU", "DiagonalLSTM", "MinGRU", "MinLSTM", "LRU", "RGLRU", "TimeDelay"}
    wrappers = {"GLU", "Stack", "Bidirectional", "Residual", "Dropout", "drop_weights"}
    wrappers |= {"RecurrentDropout", "Zoneout", "LayerNorm", "LearnedState"}
    contract = {"Cell", "GatedCell", "LinearCell", "Layered", "as_gated", "as_linear"}
    contract |= {"Child", "Wrapper", "name_gate"}
    functions = {"unroll", "unroll_with_info", "unroll_fold", "plan_memory", "explain", "summary"}
    functions |= {"bptt", "tbptt", "accumulated_tbptt", "diagnose", "diagnostics"}
    functions |= {"rtrl", "snap", "uoro", "rflo", "eprop", "online", "OnlineParams", "OnlineBatch"}
    text = {
        "generate",
        "stream",
        "score",
        "data",
        "models",
        "losses",
        "metrics",
        "optim",
        "training",
    }
    names = cells | wrappers | contract | functions | text
    assert [name for name in names if not hasattr(seqjax, name)] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'GRUU'"):
        _ = seqjax.GRUU


def test_importing_seqjax_brings_in_nothing_heavy():
    """What only training, plots or text need is imported when it is used."""
    heavy = [
        "orbax",
        "rich",
        "tyro",
        "matplotlib",
        "tokenizers",
        "sacrebleu",
        "grain",
        "torch",
        "flax",
    ]
    code = f"import sys, seqjax; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
