"""A user's own op: declared once, then matched or hinted, verified, checked, lowered, described."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

import hintc
from hintc.cli.passes import passes_command
from hintc.errors import EquivalenceError, HintcError, VerifyError
from hintc.flexbuffer import load_attributes
from hintc.ir import FunctionRef
from hintc.ops import AttributeSpec, Constraint, FusedOp, OperandSlot, Use
from hintc.pattern import Match
from hintc.remark import Refused
from hintc.rewrite import Emitter
from hintc.tflite.flatbuffer import Model

Arrays = dict[str, Any]


def scaled_product(x: Any, w: Any, gain: float, b: Any = 0.0) -> Any:
    return np.maximum(x @ w * np.float32(gain) + b, 0)


def is_small(use: Use) -> bool:
    return float(str(use.attributes["gain"])) < 10


def op_named(name: str, **more: Any) -> FusedOp:
    given: dict[str, Any] = {
        "operands": ("x", OperandSlot("b", "bias", optional=True, shape=("n",)), "w"),
        "results": ("y",),
        "attributes": {"gain": AttributeSpec(float, 1.0)},
        "code": "Scaled",
        "constraints": (Constraint("the gain is 10 or more", is_small),),
        "doc": "relu(x · w · gain + b)",
        "shapes": lambda shapes, attributes: [(shapes["x"][0], shapes["w"][1])],
        "reference": scaled_product,
    }
    return FusedOp.custom(name, **{**given, **more})


SCALED = op_named("MyScaled")


@dataclass(frozen=True)
class FuseScaled(hintc.RewritePass):
    """Fuses a scaled product."""

    name: ClassVar[str] = "fuse-scaled"
    op: ClassVar[FusedOp] = SCALED

    def pattern(self, op: Any, x: Any, w: Any) -> Any:
        """The bias may be missing, and copies and casts between are looked through."""
        product = op.Mul(op.MatMul(x, w), op.constant(where=lambda a: a.ndim == 0, as_="gain"))
        copy, bias = op.through(product), op.constant(as_="b")
        return op.Relu(op.optional(lambda v: op["Add", "AddV2"](v, bias), copy))

    def rewrite(self, match: Match, new: Emitter) -> Any:
        gain = match.constant("gain")
        assert gain is not None
        operands = {"x": match["x"], "w": match["w"]}
        if (bias := match.get("b")) is not None:
            operands["b"] = bias
        return new.call(self.op, operands, {"gain": float(gain)})


def graph_def(gain: float = 2.0, hint: bool = False) -> Any:
    import tensorflow as tf

    random = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        for width in (4, 3):
            w = tf.constant(random.normal(size=(x.shape[1], width)).astype(np.float32))
            b = tf.constant(random.normal(size=width).astype(np.float32))
            if hint:
                hinted = hintc.OpHint("MyScaled", gain=gain)
                x, b, w = hinted.add_inputs(x, b, w)
            y = tf.identity(gain * (x @ w))
            x = tf.nn.relu(y + b if width == 4 or hint else y)
            if hint:
                (x,) = hinted.add_outputs(x)
        tf.identity(x, name="y")
    return graph.as_graph_def()


@pytest.fixture
def scaled() -> Iterator[None]:
    known = dict(hintc.ops._DECLARED)
    hintc.ops.declare(SCALED)
    yield
    hintc.ops._DECLARED.clear()
    hintc.ops._DECLARED.update(known)


def operators(tflite: bytes) -> list[tuple[str, list[bool], Any]]:
    """Of each custom operator its name, which operands are there, and its custom options."""
    model = Model.read(tflite)
    return [
        (
            model.op_name(op),
            [int(i) >= 0 for i in op.inputs],
            load_attributes(bytes(bytearray(op.customOptions))),
        )
        for _, op in model.operators()
        if model.op_name(op).startswith("CUSTOM")
    ]


@pytest.mark.usefixtures("scaled")
def test_matched() -> None:
    result = hintc.convert(graph_def(), ["x"], ["y"], pipeline=FuseScaled(), check=True)
    assert operators(result.tflite) == [
        ("CUSTOM:Scaled", [True, True, True], {"gain": 2.0}),
        ("CUSTOM:Scaled", [True, False, True], {"gain": 2.0}),
    ]
    assert [remark.code for remark in result.report.fused] == ["fused-call", "fused-call"]


@pytest.mark.usefixtures("scaled")
def test_hinted() -> None:
    result = hintc.convert(graph_def(hint=True), ["x"], ["y"], check=True)
    assert operators(result.tflite) == [("CUSTOM:Scaled", [True, True, True], {"gain": 2.0})] * 2


def test_a_hint_does_not_prove_a_built_in_operator() -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        hint = hintc.OpHint("FULLY_CONNECTED")
        x = hint.add_input(tf.compat.v1.placeholder(tf.float32, [None, 3], "x"))
        w, b = hint.add_input(tf.ones([3, 2])), hint.add_input(tf.ones([2]))
        tf.identity(hint.add_output(x @ w - b), name="y")  # not what the kernel computes
    result = hintc.convert(graph.as_graph_def(), ["x"], ["y"], check=True)
    assert [remark.code for remark in result.report.not_fused] == ["hint-built-in"]
    assert not result.report.fused_ops


@pytest.mark.usefixtures("scaled")
def test_the_reference_is_the_kernel_of_the_check() -> None:
    """The .tflite itself is compared, an absent operand in the middle included."""
    given: list[tuple[int, ...]] = []

    def twice(x: Any, b: Any, w: Any, gain: float) -> Any:
        given.append(x.shape)
        return 2 * scaled_product(x, w, gain, 0.0 if b is None else b)

    result = hintc.convert(graph_def(), ["x"], ["y"], pipeline=FuseScaled(), check=True)
    assert "check" not in [remark.code for remark in result.report.remarks]
    with pytest.raises(EquivalenceError, match="the models differ"):
        hintc.convert(
            graph_def(), ["x"], ["y"], pipeline=FuseScaled(), check=True, kernels={"Scaled": twice}
        )
    assert given[:2] == [(1, 3), (1, 4)]
    hintc.ops.declare(op_named("AnotherOfThisCode"))
    result = hintc.convert(graph_def(), ["x"], ["y"], pipeline=FuseScaled(), check=True)
    assert "check" in [remark.code for remark in result.report.remarks]


@pytest.mark.usefixtures("scaled")
def test_a_constraint_leaves_the_match_alone() -> None:
    compiled = hintc.compile(graph_def(11.0), ["x"], ["y"], pipeline=FuseScaled())
    assert [remark.code for remark in compiled.report.not_fused] == ["op-constraint"] * 2
    assert "the gain is 10 or more" in compiled.report.not_fused[0].reason
    assert not compiled.report.fused_ops


def with_op(op: FusedOp) -> Any:
    @dataclass(frozen=True)
    class Other(FuseScaled):
        pass

    setattr(Other, "op", op)  # noqa: B010
    return Other()


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (
            {"reference": lambda x, w, gain, b=0.0: np.maximum(x @ w * gain - b, 0)},
            EquivalenceError,
            "differs from its reference by up to",
        ),
        (
            {"reference": lambda x, w, gain, b=0.0: scaled_product(x, w, gain, b)[0]},
            EquivalenceError,
            "its reference gives",
        ),
        ({"reference": lambda x: x}, HintcError, "the reference of .* fails"),
        ({"reference": lambda **_: (1, 2)}, HintcError, "returns 2 results, not 1"),
        ({"shapes": lambda s, a: [(1, 1, 1)]}, HintcError, "shape rule says"),
        ({"shapes": lambda s, a: [s["none"]]}, HintcError, "its shape rule fails"),
    ],
)
def test_what_the_declaration_says_is_checked(
    more: dict[str, Any], error: type[HintcError], message: str
) -> None:
    op = op_named(f"MyScaled{len(hintc.ops.declared_names())}", **more)
    with pytest.raises(error, match=message):
        hintc.convert(graph_def(), ["x"], ["y"], pipeline=with_op(op), check=True)


@pytest.mark.usefixtures("scaled")
def test_a_call_that_does_not_fit_is_no_valid_module() -> None:
    module = hintc.compile(graph_def(), ["x"], ["y"], pipeline=FuseScaled()).module
    function = next(f for f in module.functions.values() if "_implements" in f.attributes)
    for spec, message in (
        (b'{"op": "MyScaled", "slots": ["x"], "results": ["y"]}', "operand 'w' is missing"),
        (b'{"op": "MyScaled", "slots": ["x", "b", "w"], "results": ["y"]}', "lists 3 operands"),
    ):
        function.attributes["_implements"] = FunctionRef("hintc.MyScaled", (("spec", spec),))
        with pytest.raises(VerifyError, match=message):
            hintc.verify(module)


@pytest.mark.usefixtures("scaled")
def test_what_the_body_reads_must_be_an_operand() -> None:
    class Forgetful(FuseScaled):
        def rewrite(self, match: Match, new: Emitter) -> Any:
            return new.call(FusedOp.custom("Forgetful"), {"w": match["w"]}, None, ["y"])

    with pytest.raises(HintcError, match="does not take 'Relu', which it reads"):
        hintc.compile(graph_def(), ["x"], ["y"], pipeline=Forgetful())


def test_several_results_and_a_refusal_in_the_rewrite() -> None:
    import tensorflow as tf

    @dataclass(frozen=True)
    class FuseBoth(hintc.RewritePass):
        """Mean and variance at once."""

        name: ClassVar[str] = "fuse-both"
        width: int = 3

        def pattern(self, op: Any, x: Any) -> Any:
            mean = op.Mean(x, op.constant(1), keep_dims=True)
            return op.Mean(op.SquaredDifference(x, mean), op.constant(1)), op.Square(mean)

        def rewrite(self, match: Match, new: Emitter) -> Any:
            if self.width > 3:
                raise Refused("too-wide", "it is too wide")
            call = new.call(
                FusedOp.custom("MyMoments"), {"x": match["x"]}, None, ["variance", "square"]
            )
            return [call.port(0), call.port(1)]

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        mean = tf.reduce_mean(x, 1, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), 1, name="variance")
        tf.add(tf.square(mean, name="square")[:, 0], variance, name="y")
    result = hintc.convert(graph.as_graph_def(), ["x"], ["y"], pipeline=FuseBoth(), check=True)
    assert result.report.fused_ops == {"MyMoments": 1}
    ((name, _, _), *_) = operators(result.tflite)
    assert name == "CUSTOM:MyMoments"
    compiled = hintc.compile(graph.as_graph_def(), ["x"], ["y"], pipeline=FuseBoth(width=4))
    assert [remark.code for remark in compiled.report.not_fused] == ["too-wide"]


@pytest.mark.usefixtures("scaled")
def test_the_declaration_is_the_documentation() -> None:
    out = CliRunner().invoke(passes_command, ["--verbose"]).output
    assert "op MyScaled: CUSTOM operator 'Scaled'\n    relu(x · w · gain + b)\n" in out
    assert "      b [n]  (bias, may be absent)\n" in out
    assert "      gain=1.0  (float)\n      not, if the gain is 10 or more\n" in out
    assert "op CONV_2D: built-in operator CONV_2D" in out
    assert "      padding=VALID  (SAME | VALID)\n" in out
    assert "Makes, with ``emit=builtin``" in out
