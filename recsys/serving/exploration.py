"""Lists drawn at random now and then, with the chance that each place had: what off-policy evaluation needs to know.

With chance e the list is the beginning of a random permutation of the best m items, else the best k in their order. The item of place r of
the plain order then stands at place p with the chance (1 - e) [r = p] + e / m (the marginal propensity of a slot, as inverse propensity
scoring of slate rewards takes it; Li et al., WSDM 2018).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.types import IntArray


def explored(m: int, k: int, random: np.random.Generator) -> IntArray:
    """int64 (min(k, m),): places of the plain order."""
    return random.permutation(m)[:k].astype(np.int64)


def propensities(places: IntArray, m: int, share: float) -> npt.NDArray[np.float64]:
    """float64, of each shown item: the chance that it stood where it stands. places: of the plain order, of m. share: e."""
    plain: npt.NDArray[np.float64] = (places == np.arange(len(places))).astype(np.float64)
    return plain if not share else (1 - share) * plain + share / m
