"""The passes that come with hintc: one file each, the file's name is the pass's.

They reach the core as any plug-in does: the entry point in the group ``hintc.passes`` names this
package, and the registry imports its modules.
"""

# Stubs first: what they stand for must be there before anything else looks. Then calls: what is
# inside a function is seen only when it is in line. Hints are collected before loops are raised,
# because a hint says where a step begins and ends. Lengths are peeled before cells are split: the
# masks cover all cells of a loop at once. Dead code goes before loops are raised too: a sequence
# that nobody reads would be one that a kernel has to give.
DEFAULT_PIPELINE = ",".join(
    (
        "import-stubs",
        "inline-functions",
        "remove-training-nodes",
        "fold-constants",
        "collect-hints",
        "eliminate-dead-code",
        "raise-loops",
        "reroll-chains",
        "peel-lengths",
        "split-scans",
        "fuse-lstm",
        "fuse-rnn",
        "fuse-hints",
        "hoist-inputs",
        "choose-form",
        "inline-functions",
        "fold-constants",
        "eliminate-dead-code",
    )
)
