"""GraphDef in, GraphDef out: `lift` and `lower`."""

from hintc.graphdef.lift import lift
from hintc.graphdef.lower import lower

__all__ = ["lift", "lower"]
