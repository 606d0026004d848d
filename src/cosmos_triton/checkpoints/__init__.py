"""Checkpoint folders: what is published, fetching it, finding it by content, reading it without running it.

The room's face is `__init__.pyi`; what it names is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
