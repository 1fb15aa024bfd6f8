"""The public names are a contract: this file lists them a second time, on purpose."""

import inspect
import subprocess
import sys
from importlib.metadata import entry_points, version
from types import ModuleType

import pytest

import hintc

NAMES = [
    "convert",
    "compile",
    "legalize",
    "lift",
    "lower",
    "verify",
    "check_equivalence",
    "PassPipeline",
    "Pass",
    "RewritePass",
    "register",
    "FusedOp",
    "HintcError",
    "Interpreter",
    "Dump",
    "Timing",
    "OpHint",
    "TFLiteLSTMCell",
    "TfLiteRNNCell",
    "dynamic_rnn",
    "bidirectional_dynamic_rnn",
    "convert_op_hints_to_stubs",
    "find_all_hinted_output_nodes",
    "is_ophint_converted",
    "remove_training_nodes",
    "TFLiteConverter",
    "install",
    "uninstall",
]

CONVERT_PARAMETERS = {
    "source": inspect.Parameter.empty,
    "inputs": None,
    "outputs": None,
    "signature": None,
    "pipeline": None,
    "quantize": None,
    "representative_dataset": None,
    "target": "tflite",
    "state": "reset",
    "form": "auto",
    "optimize_for": "size",
    "check": None,
    "kernels": None,
    "instruments": (),
}


def test_the_list_is_complete() -> None:
    assert set(hintc.__all__) == set(NAMES) - {"compile"}
    assert set(NAMES) <= set(dir(hintc))


@pytest.mark.parametrize("name", NAMES)
def test_name_loads_and_is_documented(name: str) -> None:
    value = getattr(hintc, name)
    assert not isinstance(value, ModuleType)
    assert inspect.getdoc(value), f"hintc.{name} has no docstring"


def test_convert_takes_what_the_contract_says() -> None:
    parameters = inspect.signature(hintc.convert).parameters
    found = {name: parameters[name].default for name in CONVERT_PARAMETERS}
    assert found == CONVERT_PARAMETERS
    assert list(parameters)[:3] == ["source", "inputs", "outputs"]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'converte'"):
        _ = hintc.converte


def test_a_submodule_never_hides_the_function_of_its_name() -> None:
    script = (
        "import hintc.verify, hintc.convert, hintc\n"
        "print(callable(hintc.verify), callable(hintc.convert), callable(hintc.compile))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True"] * 3, done.stderr


def test_the_builtin_passes_come_through_the_entry_point() -> None:
    assert {point.value for point in entry_points(group="hintc.passes")} >= {"hintc_passes"}


def test_version_is_the_distribution_version() -> None:
    assert version("hintc") == hintc.__version__
