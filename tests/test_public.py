"""What the package shows to the world: every public name is documented, and importing it is light."""

import ast
import importlib
import inspect
import itertools
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib

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
    functions |= {"bptt", "tbptt", "diagnose", "diagnostics"}
    functions |= {"rtrl", "snap", "uoro", "rflo", "eprop", "OnlineParams", "OnlineBatch"}
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
        _ = seqjax.GRUU  # pyright: ignore[reportAttributeAccessIssue]


def test_dir_shows_what_is_public_and_no_internals():
    modules = {name for name in dir(seqjax) if inspect.ismodule(getattr(seqjax, name))}
    public = {"data", "diagnostics", "initializers", "losses", "metrics", "models", "optim"}
    assert modules == public | {"training"}
    assert {"LSTM", "unroll", "fit"} & set(dir(seqjax)) == {"LSTM", "unroll"}
    assert (pathlib.Path(seqjax.__file__).parent / "py.typed").is_file()


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


def test_training_needs_orbax_and_rich_only_where_they_are_used(tmp_path):
    code = """
import sys
sys.modules |= dict.fromkeys(["orbax", "orbax.checkpoint", "rich", "etils", "matplotlib"])
import jax, optax, seqjax as sj
loss = lambda params, carry, batch, key: (params**2, (carry, {}))
state = sj.training.TrainState.create(1.0, optax.sgd(0.1), jax.random.key(0))
fit = lambda **options: sj.training.fit(loss, optax.sgd(0.1), state, [0.0], steps=2, **options)
print(round(float(fit(display=False).state.params), 2))
windows = sj.data.Windows(sj.data.lanes(range(9), 1), 2)
for call in (fit, lambda: sj.training.Checkpoints(sys.argv[1])):
    try:
        call()
    except ImportError as error:
        print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines() == [
        "0.64",
        "fit: display needs the rich package: pip install 'seqjax[train]'; or pass display=False",
        "Checkpoints needs the orbax-checkpoint package: pip install 'seqjax[train]'",
    ], result.stderr


ROOT = pathlib.Path(seqjax.__file__).parent.parent
MODULE_OF = {"orbax-checkpoint": "orbax", "dm-haiku": "haiku", "scikit-learn": "sklearn"}
BY_NAME = {"beartype", "tokenizers"}  # imported by a string
TO_COME = {"flax"}
PACKAGE_AT = {"pytest.importorskip": 0, "checks.package": 1}  # the argument that names a package
COMMANDS = {"import-linter", "pre-commit", "pyright", "pytest-xdist", "ruff"}


def imported(*folders):
    """The packages that Python files in these folders import, except our own and the standard ones."""
    names = set()
    for file in itertools.chain(*((ROOT / folder).rglob("*.py") for folder in folders)):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in PACKAGE_AT:
                name = node.args[PACKAGE_AT[ast.unparse(node.func)]]
                names |= (
                    {str(name.value).split(".")[0]} if isinstance(name, ast.Constant) else set()
                )
    scripts = {file.stem for file in (ROOT / "examples").glob("*.py")}
    own = {"seqjax", "benchmarks", "docs", "examples", "tests", *scripts}
    return names - sys.stdlib_module_names - own


def test_the_packages_that_are_declared_are_those_that_are_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    named = lambda group: {re.split(r"[\[>=]", text)[0] for text in groups[group]} - {"seqjax"}
    modules = lambda *names: {MODULE_OF.get(n, n) for name in names for n in named(name)}
    library, extras = imported("seqjax"), ("train", "plot", "music", "text")
    assert modules("") - TO_COME <= library <= modules("", *extras)
    everywhere = imported("seqjax", "examples", "benchmarks", "tests") | BY_NAME
    assert modules(*extras) <= imported("seqjax", "examples") | BY_NAME
    assert modules("interop", "dev") - COMMANDS <= everywhere <= modules(*groups) | BY_NAME
