"""Imports MONAI without transformers, which it would take along for a net that is not used here.

That takes two of five seconds of processor time, in every trial. Whoever imports transformers
afterwards gets it.
"""

import sys

_is_absent = "transformers" not in sys.modules
if _is_absent:
    sys.modules["transformers"] = None  # type: ignore[assignment]  # an import of it raises
try:
    import monai.networks.nets  # noqa: F401
finally:
    if _is_absent:
        del sys.modules["transformers"]
