"""The passes that come with hintc: one file each, the file's name is the pass's.

They reach the core as any plug-in does: the entry point in the group ``hintc.passes`` names this
package, and the registry imports its modules.
"""

# The batch is fixed before anything is computed from it. Then stubs: what they stand for must be
# there before anything else looks. Then control flow v1, while bodies are still functions with
# frames of their own. Then calls: what is inside a function is seen only when it is in line.
# Conditions that only save time go next: they hide steps. Cells that are one op are spelled out
# before anyone looks for steps. Hints are collected before loops are raised, because a hint says
# where a step begins and ends. Dead code goes before loops are raised too: a sequence that nobody
# reads would be one that a kernel has to give. Packed states are taken apart before lengths are
# peeled, which may read a final state from the outputs; that is before cells are split: the masks
# cover all cells of a loop at once. Cells that are called once come last of all that is raised:
# they are what no loop and no chain has taken. Directions are joined once layers are fused calls;
# only then TensorFlow sees through all of them to the sizes of values.
DEFAULT_PIPELINE = ",".join(
    (
        "fix-batch",
        "import-stubs",
        "functionalise-control-flow",
        "inline-functions",
        "remove-shortcuts",
        "remove-training-nodes",
        "fold-constants",
        "expand-block-cells",
        "collect-hints",
        "eliminate-dead-code",
        "raise-loops",
        "unroll-while",
        "reroll-chains",
        "split-states",
        "peel-lengths",
        "split-scans",
        "raise-steps",
        "fuse-lstm",
        "fuse-rnn",
        "fuse-hints",
        "set-forms",
        "hoist-inputs",
        "choose-form",
        "fuse-bidirectional",
        "inline-functions",
        "fold-shapes",
        "fold-constants",
        "resolve-lists",
        "eliminate-dead-code",
    )
)
