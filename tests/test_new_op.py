"""hintc new-op: the folder is whole, builds, and its kernel runs in the stock interpreters."""

from __future__ import annotations

import ctypes
import importlib
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import custom_ops
from custom_convs import converted, several, single
from custom_ops import Op
from hintc.cli import main
from hintc.errors import HintcError
from hintc.flexbuffer import dump_attributes
from hintc.ops import AttributeValue
from hintc.runtime import abi_check, session
from hintc.runtime import tflite_abi as abi
from hintc.runtime.interpreter import Interpreter, installed
from hintc.runtime.kernels import AnyKernel
from hintc.scaffold import new_op
from hinted_graphs import HintedModel

MODULES = tuple(abi_check.RUNTIMES)
runtimes = pytest.mark.parametrize("module", MODULES)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("make")),
    reason="there is no C compiler 'cc' or no 'make' on the PATH",
)
FILES = [
    *("Makefile", "README.md", "delegate.c", "kernel.h", "my_op.c", "test_my_op.py"),
    "tflite_abi.h",
]


def test_the_folder_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-op", "MyOp", "--into", str(tmp_path)]) == 0
    made = tmp_path / "my_op"
    assert sorted(path.name for path in made.iterdir()) == FILES
    assert f"make -C {made} test" in capsys.readouterr().out
    for path in made.iterdir():
        text = path.read_text()
        assert "{{" not in text
        assert "NAME" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["my_op"]
    assert made.stat().st_mode == tmp_path.joinpath("my_op").parent.stat().st_mode | 0o055


@pytest.mark.parametrize(
    ("name", "file"),
    [("MyConv2D", "my_conv2d"), ("my_op", "my_op"), ("LSTMCell", "lstm_cell"), ("X", "x")],
)
def test_names(name: str, file: str, tmp_path: Path) -> None:
    folder, files = new_op(name, tmp_path)
    assert folder == tmp_path / file
    assert Path(f"{file}.c") in files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new-op", "1op"], "cannot be the name of an op"),
        (["new-op", "my-op"], "letters, digits and underscores"),
        (["new-op", "MyOp", "--into", "missing"], "there is no folder"),
        (["new-op"], "Missing argument"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "my_op").mkdir()
    (tmp_path / "other").symlink_to("nowhere")
    for name in ("MyOp", "Other"):
        with pytest.raises(HintcError, match="it exists"):
            new_op(name, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["my_op", "other"]


def test_nothing_is_left_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(path: Path, text: str, **options: Any) -> int:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path)
        return path.write_bytes(text.encode())

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(HintcError, match="No space left"):
        new_op("MyOp", tmp_path)
    assert len(written) == 3
    assert not list(tmp_path.iterdir())


def build(folder: Path) -> Path:
    strict = "CFLAGS=-O1 -Wpedantic -Wconversion -Werror"
    done = subprocess.run(
        ["make", "-C", str(folder), strict], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (library,) = folder.glob("lib*.so")
    return library


@pytest.fixture(scope="module")
def my_op(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = new_op("MyOp", tmp_path_factory.mktemp("op"))
    return build(folder)


@pytest.fixture(scope="module")
def my_conv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = new_op("MyConv", tmp_path_factory.mktemp("conv"))
    shutil.copy(Path(__file__).with_name("my_conv.c"), folder)
    return build(folder)


@needs_compiler
@pytest.mark.parametrize("bias", [True, False])
@runtimes
def test_the_test_it_writes(module: str, bias: bool, my_op: Path) -> None:
    runpy.run_path(str(my_op.parent / "test_my_op.py"))["test_it_equals_tensorflow"](module, bias)


@needs_compiler
def test_make_runs_the_test_it_writes(my_op: Path) -> None:
    command = ["make", "-C", str(my_op.parent), "--dry-run", "test", "PYTHON=py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "py -m pytest test_my_op.py" in done.stdout


def test_without_a_compiler_the_test_it_writes_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = new_op("MyOp", tmp_path)
    written = runpy.run_path(str(folder / "test_my_op.py"))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(pytest.fail.Exception, match="there is no 'no-such-compiler'"):
        written["built"]()


def interpreter(module: str, model: bytes, library: Path) -> Any:
    stock = importlib.import_module(module)
    delegates = [stock.load_delegate(str(library))]
    return stock.Interpreter(model_content=model, experimental_delegates=delegates)


def check(model: HintedModel, stock: Any) -> None:
    (given,) = stock.get_input_details()
    for batch in (1, 3, 2):
        ((name, value),) = model.feeds(batch).items()
        wanted = session.run(model.graph_def, {name: value}, model.outputs)
        stock.resize_tensor_input(given["index"], value.shape)
        stock.allocate_tensors()
        for _ in range(2):
            stock.set_tensor(given["index"], value)
            stock.invoke()
            found = [stock.get_tensor(detail["index"]) for detail in stock.get_output_details()]
            for one, other in zip(found, wanted.values(), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("build", [single, several])
def test_a_convolution_in_c(build: Any, my_conv: Path) -> None:
    model, result = converted(build)
    for module in MODULES:
        check(model, interpreter(module, result.tflite, my_conv))


@needs_compiler
def test_hintc_takes_the_library_as_a_kernel(my_conv: Path) -> None:
    _, result = converted(several, check=True, kernels={"MyConv": my_conv})
    assert max(result.report.errors.values()) < 1e-5
    tensors: dict[str, Any] = dict.fromkeys("xay", (np.float32, (1, 8, 8, 2)))
    tensors["w"] = np.ones((1, 1, 2, 2), np.float32)
    ops = [Op("MyConv", ["x", "w"], ["a"]), Op("Half", ["a"], ["y"])]
    model = custom_ops.model(tensors, ops, ["x"], ["y"]).write()
    x = np.ones((1, 8, 8, 2), np.float32)
    for runtime in installed():
        kernels: dict[str, AnyKernel] = {"MyConv": str(my_conv), "Half": lambda a: a / 2}
        found = Interpreter(model, runtime=runtime, kernels=kernels).run([x])["y"]
        np.testing.assert_array_equal(found, x)
        with pytest.raises(HintcError, match="no kernel for the custom ops 'Half'"):
            Interpreter(model, runtime=runtime, kernels={"MyConv": my_conv, "Other": my_conv})


@needs_compiler
@pytest.mark.parametrize("field", ["TfLiteType type;", "void* user_data;", "int version;"])
def test_a_runtime_with_other_structures_is_refused(field: str, tmp_path: Path) -> None:
    """In C the header is the same for all runtimes: here the header differs from the runtime."""
    folder, _ = new_op("MyOp", tmp_path)
    header = folder / "tflite_abi.h"
    before, found, after = header.read_text().partition(field)
    assert found
    after = after.partition("_Static_assert")[0] + "\n#endif\n"
    header.write_text(f"{before}void *another[2]; {field}{after}")
    library = build(folder)
    tensors: dict[str, Any] = dict.fromkeys("xay", (np.float32, (1, 3)))
    ops = [Op("MyOp", ["x"], ["a"]), Op("MyOp", ["a"], ["y"])]
    model = custom_ops.model(tensors, ops, ["x"], ["y"]).write()
    for runtime in installed():
        with pytest.raises(HintcError, match=r"not those of tflite_abi\.h"):
            Interpreter(model, runtime=runtime, kernels={"MyOp": library})


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "no_library.so").write_text("nothing")
    for path in ("missing.so", "no_library.so"):
        with pytest.raises(HintcError, match=f"{path}' cannot be loaded"):
            Interpreter(b"", kernels={"f": tmp_path / path})


@needs_compiler
@runtimes
def test_an_error_of_the_kernel(module: str, my_op: Path) -> None:
    tensors: dict[str, Any] = {"x": (np.int32, (-1, 3)), "y": (np.float32, (-1, 3))}
    model = custom_ops.model(tensors, [Op("MyOp", ["x"], ["y"])], ["x"], ["y"]).write()
    stock = interpreter(module, model, my_op)
    with pytest.raises(RuntimeError, match=r"MyOp \(node 'y'\): operand 0 must be float32"):
        stock.allocate_tensors()


@needs_compiler
def test_damaged_options_are_read_safely(my_op: Path) -> None:
    """Every byte of the options in turn, and every end: the kernel runs, with some gain."""
    attributes: dict[str, AttributeValue] = {"a": (1, 2), "gain": 2.5, "name": "abc", "z": 7}
    whole = bytes(dump_attributes(attributes))
    damaged = [whole[:end] for end in range(len(whole))]
    for at in range(len(whole)):
        damaged += [whole[:at] + bytes([b]) + whole[at + 1 :] for b in (0, 1, 4, 127, 255)]
    x = np.array([[1.0]], np.float32)
    for options in damaged:
        tensors: dict[str, Any] = {"x": (np.float32, (1, 1)), "y": (np.float32, (1, 1))}
        op = Op("MyOp", ["x"], ["y"], options)
        model = custom_ops.model(tensors, [op], ["x"], ["y"]).write()
        stock = interpreter(MODULES[0], model, my_op)
        stock.allocate_tensors()
        stock.set_tensor(0, x)
        stock.invoke()


@needs_compiler
def test_the_two_declarations_agree(my_op: Path, tmp_path: Path) -> None:
    """The compiler's offsets of tflite_abi.h are those of ctypes."""
    calls = "GetExecutionPlan ResizeTensor ReportError AddTensors GetNodeAndRegistration "
    calls += "ReplaceNodeSubsetsWithDelegateKernels"
    buffers = "Prepare CopyFromBufferHandle CopyToBufferHandle FreeBufferHandle"
    names: dict[str, tuple[Any, dict[str, str]]] = {
        "TfLiteTensor": (abi.Tensor, {"params": "scale", "quantization": "quantization_type"}),
        "TfLiteNode": (abi.Node, {}),
        "TfLiteRegistration": (abi.Registration, {}),
        "TfLiteDelegateParams": (abi.DelegateParams, {}),
        "TfLiteContext": (abi.Context, _snake(calls)),
        "TfLiteDelegate": (abi.Delegate, _snake(buffers)),
    }
    lines, wanted = [], []
    for struct, (structure, spelled) in names.items():
        back = {ours: theirs for theirs, ours in spelled.items()}
        lines.append(f'printf("%zu\\n", sizeof({struct}));')
        wanted.append(ctypes.sizeof(structure))
        for field, _ in structure._fields_:
            if field not in ("zero_point", "quantization_params"):  # inside another structure
                lines.append(f'printf("%zu\\n", offsetof({struct}, {back.get(field, field)}));')
                wanted.append(getattr(structure, field).offset)
    source = tmp_path / "offsets.c"
    source.write_text(
        '#include <stdio.h>\n#include "tflite_abi.h"\nint main(void) {\n' + "\n".join(lines) + "}\n"
    )
    program = tmp_path / "offsets"
    subprocess.run(["cc", "-I", my_op.parent, "-o", program, source], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert [int(line) for line in printed.split()] == wanted


def _snake(names: str) -> dict[str, str]:
    return {n: "".join(f"_{c.lower()}" if c.isupper() else c for c in n)[1:] for n in names.split()}
