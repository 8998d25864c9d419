"""The order in which the rows of a dataset are visited: one shuffled pass after another."""

from __future__ import annotations

import numpy as np

_BLOCK_ROWS = 4096


class DatasetWalks:
    """The endless series of shuffled passes over each dataset; every pass visits every row once.

    Args:
        sizes: number of rows of each dataset, shape (datasets,).
        seed: seed of the shuffles.
    """

    def __init__(self, sizes: np.ndarray, seed: int) -> None:
        self.sizes = sizes
        self.seed = seed
        # The last shuffled block of each dataset, with the number of the block.
        self._blocks: dict[int, tuple[int, np.ndarray]] = {}

    def rows(self, number: int, start: int, count: int) -> np.ndarray:
        """Return a part of a dataset's series.

        Args:
            number: index of the dataset, counted from 0.
            start: the first position in the series.
            count: the number of positions.

        Returns:
            The rows' positions in the dataset, shape (count,).
        """
        size = int(self.sizes[number])
        # Several passes are shuffled at once, so that a small dataset costs no more per row than a large one.
        passes = -(-_BLOCK_ROWS // size)
        rows = [np.empty(0, dtype=np.int64)]
        position = start
        while position < start + count:
            block, offset = divmod(position, passes * size)
            part = self._block(number, block, passes)[offset : offset + start + count - position]
            rows.append(part)
            position += len(part)
        return np.concatenate(rows)

    def _block(self, number: int, block: int, passes: int) -> np.ndarray:
        if self._blocks.get(number, (-1,))[0] != block:
            rng = np.random.default_rng([self.seed, number, block])
            in_order = np.tile(np.arange(self.sizes[number], dtype=np.int32), (passes, 1))
            self._blocks[number] = block, rng.permuted(in_order, axis=1).ravel()
        return self._blocks[number][1]
