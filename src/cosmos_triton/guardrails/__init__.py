"""Guardrails: what a request may ask for and what may leave the server.

    posture     prompt                                   video
    full        word list, Cosmos blocklist, LLM guard   content filter (SigLIP), faces (RetinaFace)
    built-in    word list                                faces (OpenCV)
    disabled    nothing                                  nothing, and every report says so

A posture whose models are missing or damaged does not load (`CheckpointError` names what to
download), and a check that fails at run time refuses its request: there is no state in which
nothing is loaded and everything passes.

The room's face is `__init__.pyi`; what it names is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
