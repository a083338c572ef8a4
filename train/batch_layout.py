"""How the samples of a training are dealt to its steps, processes and workers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchLayout:
    """One process among several that share every batch, and the workers that load for it.

    Step s takes the samples s * batch_size to (s + 1) * batch_size - 1, process by process.
    """

    batch_size: int  # of all processes together
    rank: int = 0
    world_size: int = 1
    num_workers: int = 1  # of each process; 0: it loads its data itself

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ValueError(
                f"a batch of {self.batch_size} samples cannot be shared by {self.world_size} "
                "processes; choose a multiple of their number"
            )
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank must be 0 to {self.world_size - 1}, got {self.rank}")

    @property
    def share(self) -> int:
        """Samples of one process in each step."""
        return self.batch_size // self.world_size

    @property
    def num_streams(self) -> int:
        """Workers of one process that read data: itself if it has none."""
        return max(1, self.num_workers)

    def numbers(self, step: int) -> range:
        """The samples that are this process's share of a step."""
        first = step * self.batch_size + self.rank * self.share
        return range(first, first + self.share)

    def stream(self, step: int) -> int:
        """Which worker reads a step, the same before and after an interruption.

        It is the one to which torch's loader deals the step.
        """
        return step % self.num_streams
