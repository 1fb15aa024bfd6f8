"""Which ops are most of the work of a recurrent cell."""

PRODUCTS = frozenset(("BatchMatMul", "BatchMatMulV2", "Conv2D", "Einsum", "MatMul"))
"""Products of matrices, and convolutions."""
