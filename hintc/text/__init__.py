r"""The text form of modules, for tests, dumps and reproducers: it prints and parses exactly.

::

    hintc.ir 1
    module {
      graph (%x) {
        %x = Placeholder() {dtype = float, shape = <?x28>}
        %axis = Const() {dtype = int32, value = int32<>[1]}
        %y:2 = Split(%axis, %x) {T = float, num_split = 2} device "/cpu:0" after (%init)
        %init = NoOp()
        return y = %y:1
      }
      func @body(%t: int32, %h: float) attributes {_implements = @cell{n = 2}} {
        return h = %h
      }
    }

Names with odd characters are quoted: ``%"a b"``. ``%y:2 = …`` says that two results are read,
``%y:1`` is the second. Order is free, so cyclic graphs print too. Attribute values are float32
numbers (``1.0``), integers (``1``), ``true``, strings (``"a\n\xff"``), element types
(``float``), shapes (``<2x?>``, ``<>`` a scalar, ``<*>`` no known rank), constants
(`hintc.text.tensors`), functions (``@f{T = float}``), attributes of the enclosing function
(``$T``) and lists of them (``[1, 2]``, ``[]``). ``//`` starts a comment.

Lost in print: NodeDef's debug info, and the difference between an empty list and no value.
"""

from hintc.text.parser import parse_module
from hintc.text.printer import VERSION, print_attribute, print_graph, print_module, print_node

__all__ = [
    "VERSION",
    "parse_module",
    "print_attribute",
    "print_graph",
    "print_module",
    "print_node",
]
