"""Item vectors in two dimensions, for a picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.rng import derive_seed
from recsys.types import FloatArray

TSNE_UP_TO = 5000
"""Beyond this t-SNE takes longer than a picture is worth; the first two principal components stand in."""
COMPONENTS = 50


def map_2d(values: FloatArray, *, seed: int = 0) -> npt.NDArray[np.float64]:
    """float64 (n, 2): PCA to 50 dimensions, then t-SNE (van der Maaten and Hinton, 2008) for at most 5000 rows; PCA alone for more."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n, d = values.shape
    if n < 4 or d < 2:
        return np.column_stack([values[:, :2], np.zeros((n, max(0, 2 - d)))]).astype(np.float64)
    tsne = n <= TSNE_UP_TO
    random_state = derive_seed(seed, "evaluation", "map") % 2**32
    reduced = PCA(
        n_components=min(COMPONENTS if tsne else 2, n, d), svd_solver="randomized" if min(n, d) > COMPONENTS else "full", random_state=random_state
    ).fit_transform(values)
    if not tsne:
        return np.asarray(reduced, dtype=np.float64)
    # 400 rounds: the picture hardly changes to the eye after that, and 5000 rows stay within seconds.
    # One thread: the gradient's many short parallel steps cost more in waiting than they gain on a busy machine.
    with threadpool_limits(limits=1):
        picture = TSNE(n_components=2, perplexity=min(30.0, (n - 1) / 3), init="pca", max_iter=400, random_state=random_state).fit_transform(reduced)
    return np.asarray(picture, dtype=np.float64)
