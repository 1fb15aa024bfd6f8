"""Random recurrent models: a seed gives a recipe, which says what is exactly a kernel's maths.

The recipe is plain Python; `recurrent_fronts` builds it in TensorFlow or Keras.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_check import Outcome

DEPTH, WIDTH, STEPS = 3, 4, 5
GRAPHS = (
    "v1 dynamic",
    "v1 static",
    "hinted dynamic",
    "hinted static",
    "while",
    "scan",
    "autograph",
)
FRONTS = (*GRAPHS, "keras 2", "keras 3")
LSTM_ACTIVATIONS = ("tanh", "relu", "relu6")
RNN_ACTIVATIONS = (*LSTM_ACTIVATIONS, "linear")


@dataclass(frozen=True)
class Cell:
    """One layer of cells.

    Attributes:
        kind: "lstm", "rnn", "gru".
        units: of the state.
        options: of the front end's cell, see `_options`.
        wrapper: of TF1: "none", "dropout", "residual", "device".
    """

    kind: str
    units: int
    options: dict[str, Any] = field(default_factory=dict)
    wrapper: str = "none"

    @property
    def width(self) -> int:
        """Of the output."""
        return int(self.options.get("num_proj") or self.units)

    @property
    def trap(self) -> str:
        """One of `TRAPS` if the cell really has it."""
        trap = str(self.options.get("trap", ""))
        square = self.width == self.units
        same = self.options.get("activation") == "relu6"
        idle = (trap in ("swapped", "reads c") and not square) or (
            trap == "two activations" and same
        )
        return "" if idle else trap

    @property
    def exact(self) -> bool:
        """Whether one step is what a kernel computes."""
        activation = self.options.get("activation", "tanh")
        if self.kind == "gru" or self.trap:
            return False
        if self.kind == "rnn":
            return activation in RNN_ACTIVATIONS
        gate = self.options.get("recurrent_activation", "sigmoid")
        return activation in LSTM_ACTIVATIONS and gate == "sigmoid"

    def __str__(self) -> str:
        options = [f"{k}={v}" for k, v in self.options.items()]
        options += [self.wrapper] if self.wrapper != "none" else []
        return f"{self.kind}{self.units}" + (f"({', '.join(options)})" if options else "")


@dataclass(frozen=True)
class Walk:
    """How a loop by hand goes over its rows.

    Attributes:
        count: its index runs "up" from 0, "down" to 0, or "from one".
        row: how it reads a row: "array" (a TensorArray), "slice" or "gather".
        literal: whether it knows the number of steps, where that is fixed, as a number.
        turn: what goes against the direction of the loop: "nothing", "read", "write" or "both".
    """

    count: str = "up"
    row: str = "array"
    literal: bool = False
    turn: str = "nothing"

    def reads_backward(self, backward: bool) -> bool:
        """Whether a loop of this direction reads the last row first."""
        return backward != (self.turn in ("read", "both"))

    def writes_backward(self, backward: bool) -> bool:
        """Whether a loop of this direction writes the last row first."""
        return backward != (self.turn in ("write", "both"))

    def __str__(self) -> str:
        turned = f", {self.turn} turned" if self.turn != "nothing" else ""
        literal = ", literal" if self.literal else ""
        return f"[{self.count}, {self.row}{literal}{turned}]"


@dataclass(frozen=True)
class Group:
    """Cells that one loop runs, one after the other.

    Attributes:
        cells: the first reads the sequence.
        direction: "forward", "backward" or "both".
        merge: of both directions: "concat", "sum" or "mul".
        initial: the states start as "zeros", as something "computed" from the inputs, or from the
            final states of the loop before: that of the "other" direction or of the last group.
        walk: of loops by hand: they go backward by index; None: their inputs and outputs are
            reversed outside.
    """

    cells: tuple[Cell, ...]
    direction: str = "forward"
    merge: str = "concat"
    initial: str = "zeros"
    walk: Walk | None = None

    @property
    def ways(self) -> int:
        return 2 if self.direction == "both" else 1

    @property
    def width(self) -> int:
        """Of the output."""
        both = self.direction == "both" and self.merge == "concat"
        return self.cells[-1].width * (2 if both else 1)

    def __str__(self) -> str:
        text = " > ".join(map(str, self.cells))
        text += f" {self.direction}" if self.direction != "forward" else ""
        text += f" {self.merge}" if self.direction == "both" else ""
        text += f" {self.walk}" if self.walk else ""
        return text + (f" {self.initial} state" if self.initial != "zeros" else "")

    @property
    def walks_forward(self) -> bool:
        """Whether the loops read and write row after row from the first one on."""
        walk = self.walk
        return walk is None or (self.direction == "forward" and walk.turn == "nothing")


@dataclass(frozen=True)
class Recipe:
    """A model.

    Attributes:
        seed: that it was made from; also of its weights.
        front: one of `FRONTS`.
        control_flow: version 1 or 2, of TF1's front ends and hand-written loops.
        groups: run one after the other.
        time_major: layout of the input and of the outputs.
        lengths: whether rows have lengths (Keras: a mask).
        dynamic_batch, dynamic_time: which dimensions are unknown.
        read: what of the last group the outputs are: "sequence", "last", "h", "c".
        taps: what of the groups before are outputs as well: "sequence", "h", "c".
        beside: what else is in the model: "nothing"; "residual": around each group; "attention":
            between groups; "shared": the first group runs on two inputs; "nested": the first group
            runs in an outer loop of two steps.
        coarse: weights are -0.5, 0 or 0.5, which int8 and float16 hold exactly; else spread.
    """

    seed: int
    front: str
    control_flow: int
    groups: tuple[Group, ...]
    time_major: bool
    lengths: bool
    dynamic_batch: bool
    dynamic_time: bool
    read: tuple[str, ...]
    beside: str
    taps: tuple[str, ...] = ()
    coarse: bool = False

    @property
    def keras(self) -> bool:
        return self.front.startswith("keras")

    @property
    def recurrences(self) -> list[tuple[bool, bool]]:
        """For each recurrence that runs: is it exactly a kernel's maths; is a step of it?

        What is around a step may be more than a kernel does: a mask, or c at the end of each row.
        """
        found = []
        for number, group in enumerate(self.groups):
            last = number == len(self.groups) - 1
            read = not last or {"sequence", "last"} & set(self.read)
            times = 2 if self.beside == "shared" and number == 0 and read else 1
            for run, (place, cell) in itertools.product(range(times), enumerate(group.cells)):
                outer = place == len(group.cells) - 1
                if not read and outer and cell.trap in ("shifted", "reads c"):
                    cell = replace(cell, options=cell.options | {"trap": ""})
                keeps_c = self.lengths and outer and self._reads_c(number)
                keeps_c = keeps_c and (not run or group.initial == "other")
                masked = self.lengths and (self.keras or not group.walks_forward)
                exact = cell.exact and not (masked or keeps_c)
                found += [(exact, cell.exact)] * group.ways
        return found

    def _reads_c(self, number: int) -> bool:
        """Whether anything reads this group's final c, of the outermost cells."""
        following = self.groups[number : number + 2]
        starts = [g for g in following[1:] if g.initial == "other"]
        starts += [g for g in following[:1] if g.initial == "other" and g.ways == 2]
        if any(cell.kind == "lstm" for group in starts for cell in group.cells):
            return True
        return "c" in (self.read if number == len(self.groups) - 1 else self.taps)

    @property
    def kernels(self) -> int:
        """How many recurrences are exactly a kernel's maths."""
        return sum(exact for exact, _ in self.recurrences)

    @property
    def possible(self) -> int:
        """How many a kernel may run: those with a kernel's step; nothing is demanded of more."""
        return sum(step for _, step in self.recurrences)

    def __str__(self) -> str:
        parts = [self.front]
        parts += [f"cf{self.control_flow}"] if not self.keras else []
        parts += [" | ".join(map(str, self.groups))]
        parts += ["batch-major"] if not self.time_major and not self.keras else []
        parts += ["lengths"] if self.lengths else []
        parts += ["fixed batch"] if not self.dynamic_batch else []
        parts += ["dynamic time"] if self.dynamic_time else []
        parts += [self.beside] if self.beside != "nothing" else []
        taps = [f"inner {what}" for what in self.taps]
        return f"{', '.join(parts)} -> {', '.join([*self.read, *taps])}"


def recipe(seed: int, control_flow: tuple[int, ...] = (1, 2)) -> Recipe:
    """The recipe of a seed; always the same."""
    chance = random.Random(seed)
    front = chance.choice(FRONTS)
    keras, static = front.startswith("keras"), front.endswith("static")
    lengths = front != "scan" and chance.random() < 0.25
    dynamic_time = not static and chance.random() < 0.4
    beside = chance.choice(("nothing", "nothing", "residual", "attention", "shared", "nested"))
    if beside == "nested" and (keras or front.startswith("hinted") or static):
        beside = "nothing"
    groups = _groups(chance, front, dynamic_time, nested=beside == "nested")
    made = Recipe(
        seed,
        front,
        chance.choice(control_flow),
        groups,
        time_major=not keras and chance.random() < 0.5,
        lengths=lengths,
        dynamic_batch=chance.random() < 0.8,
        dynamic_time=dynamic_time,
        read=_read(chance, groups[-1]),
        beside=beside,
    )
    return _varied(made, random.Random(f"walks, starts and taps of {seed}"))


def _varied(made: Recipe, chance: random.Random) -> Recipe:
    """The recipe with what was added later, drawn apart so that all else stays as it was."""
    if made.front in GRAPHS[4:] and chance.random() < 0.3:
        made = _in_a_row(made, chance)
    groups = []
    for number, group in enumerate(made.groups):
        if made.front in GRAPHS[4:] and chance.random() < 0.6:
            group = replace(group, walk=_walk(chance, made))
        if group.initial == "zeros" and (number or group.ways == 2) and chance.random() < 0.25:
            group = replace(group, initial="other")
        groups.append(group)
    taps = ["sequence", "h", *(["c"] if groups[0].cells[-1].kind == "lstm" else [])]
    taps = [what for what in taps if len(groups) > 1 and chance.random() < 0.15]
    return replace(made, groups=tuple(groups), taps=tuple(taps))


def _in_a_row(made: Recipe, chance: random.Random) -> Recipe:
    """Two plain layers with nothing between: the one reads just what the other has written."""
    kind = chance.choice(("lstm", "lstm", "rnn"))
    options = {"order": "ifgo", "packing": "two"} if kind == "lstm" else {}
    ways = [chance.choice(("forward", "backward")) for _ in range(2)]
    groups = tuple(Group((Cell(kind, WIDTH, options),), way) for way in ways)
    read = tuple(what for what in made.read if kind == "lstm" or what != "c")
    return replace(made, groups=groups, read=read or ("sequence",), beside="nothing")


def _walk(chance: random.Random, made: Recipe) -> Walk:
    if made.front == "scan":  # which knows one order only, and its reverse
        return Walk()
    return Walk(
        chance.choice(("up", "up", "down", "from one")),
        chance.choice(("array", "slice", "gather")),
        literal=not made.dynamic_time and chance.random() < 0.5,
        turn=chance.choice(("nothing", "nothing", "read", "write", "both")),
    )


def _read(chance: random.Random, last: Group) -> tuple[str, ...]:
    among = ["sequence", "last", "h"]
    among += ["c"] if last.cells[-1].kind == "lstm" and chance.random() < 0.5 else []
    chosen = [one for one in among if chance.random() < 0.45]
    return tuple(chosen or [chance.choice(among)])


def _groups(
    chance: random.Random, front: str, dynamic_time: bool, *, nested: bool
) -> tuple[Group, ...]:
    groups: list[Group] = []
    width = DEPTH
    for number in range(chance.choice((1, 1, 2))):
        cells: list[Cell] = []
        ways = chance.choice(("forward", "forward", "backward", "both"))
        merge = chance.choice(("concat", "sum", "mul"))
        for _ in range(chance.choice((1, 1, 1, 2))):
            cells.append(_cell(chance, front, cells[-1].width if cells else width))
        if nested and number == 0:
            cells, merge = [_nested_cell(chance, front)], "sum"
        if front.startswith("keras") and not dynamic_time and chance.random() < 0.15:
            cells = [Cell(c.kind, c.units, c.options | {"unroll": True}) for c in cells]
        initial = "computed" if chance.random() < 0.2 else "zeros"
        groups.append(Group(tuple(cells), ways, merge, initial))
        width = groups[-1].width
    return tuple(groups)


def _cell(chance: random.Random, front: str, width: int) -> Cell:
    hinted = front.startswith("hinted")
    kinds = ("lstm", "lstm", "rnn") if hinted else ("lstm", "lstm", "rnn", "gru")
    kind = chance.choice(kinds)
    units = chance.choice((WIDTH, WIDTH, WIDTH + 1))
    options = _options(chance, front, kind)
    wrapper = "none"
    if front.startswith("v1"):
        wrapper = chance.choice(("none", "none", "none", "dropout", "residual", "device"))
        out = options.get("num_proj") or units
        wrapper = "none" if wrapper == "residual" and out != width else wrapper
    return Cell(kind, units, options, wrapper)


def _nested_cell(chance: random.Random, front: str) -> Cell:
    """A plain cell whose output has the width of the inputs."""
    packed = {"order": "ifgo", "packing": "two"} if front in GRAPHS[4:] else {}
    kind = chance.choice(("lstm", "rnn", "gru"))
    return Cell(kind, DEPTH, packed if kind == "lstm" else {})


def _options(chance: random.Random, front: str, kind: str) -> dict[str, Any]:
    def some(probability: float, **options: Any) -> dict[str, Any]:
        return options if chance.random() < probability else {}

    activations = ["relu", "relu6", "sigmoid"] + (["linear"] if kind == "rnn" else [])
    found: dict[str, Any] = {}
    if kind != "gru":
        found |= some(0.25, activation=chance.choice(activations))
    if front.startswith("keras"):
        found |= some(0.2, use_bias=False) | some(0.15, as_cell=True)
        found |= some(0.1, dropout=0.2) if front == "keras 2" else {}
        if kind != "rnn":
            found |= some(0.15, recurrent_activation="hard_sigmoid") | some(0.2, implementation=1)
        return found | (some(0.5, reset_after=False) if kind == "gru" else {})
    if kind != "lstm":
        return found | (some(0.2, trap="shifted") if front in GRAPHS[4:] and kind == "rnn" else {})
    found |= some(0.3, use_peepholes=True) | some(0.25, cell_clip=0.3)
    found |= some(0.3, num_proj=WIDTH if chance.random() < 0.5 else DEPTH)
    if "num_proj" in found:
        found |= some(0.4, proj_clip=0.1)
    found |= some(0.3, forget_bias=chance.choice((0.0, 0.5)))
    if front.startswith("v1"):
        return found | some(0.15, state_is_tuple=False) | some(0.15, num_unit_shards=2)
    if front in GRAPHS[4:]:
        found |= {"order": "".join(chance.sample("ifgo", 4))}
        found |= {"packing": chance.choice(("concat", "two", "four"))}
        found |= some(0.2, use_bias=False) | some(0.15, cifg=True)
        found |= some(0.2, trap=chance.choice(TRAPS))
    return found


TRAPS = ("swapped", "shifted", "zoneout", "hard gate", "time", "two activations", "reads c", "half")
"""Small departures from the LSTM's maths that must not fuse: the body returns h as c and c as h;
y is the previous h; the new h is mixed with the old; a gate is a hard sigmoid; a gate reads the
index of the step; one tanh is a relu; y is c; the new value is halved."""


def check_seed(seed: int) -> Outcome:
    """Build the model of a seed, convert it and compare it."""
    from model_check import Outcome, check
    from recurrent_fronts import build

    try:
        model = build(recipe(seed))
    except Exception as error:  # noqa: BLE001 - the recipe is wrong
        return Outcome("failed", f"cannot be built: {type(error).__name__}: {error}"[:300])
    return check(model)
