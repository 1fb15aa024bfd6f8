"""Recognising recurrent cells by their maths: algebra, evaluation of a step, fusing a Scan."""
