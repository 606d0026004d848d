"""A short world shown to a network that was trained on more frames.

5 latent frames become 8 by reflection: 0 1 2 3 4 3 2 1. The three extra frames matter, because the
others attend to them.
"""

from torch import Tensor


def pad_by_reflection(tokens: Tensor, frames: int) -> Tensor:
    """A world with further frames behind its end, the last but one first.

    Args:
        tokens: [T, h, w] with frames / 2 < T <= frames.
        frames: latent frames that the network sees.

    Returns:
        [frames, h, w].

    Raises:
        ValueError: T frames are too many, or too few for one reflection.
    """
    if tokens.shape[0] > frames:
        raise ValueError(f"{tokens.shape[0]} latent frames exceed the {frames} that the network sees")
    return tokens[reflected(range(tokens.shape[0]), frames)]


def reflected(source: range, length: int) -> list[int]:
    """The first `length` numbers of `source`, continued backwards from its last where it is shorter.

    Raises:
        ValueError: it is too short for one reflection.
    """
    missing = length - len(source)
    if missing <= 0:
        return list(source[:length])
    if missing >= len(source):
        raise ValueError(f"{len(source)} latent frames cannot be padded to {length} by one reflection")
    return [*source, *reversed(source[-1 - missing : -1])]
