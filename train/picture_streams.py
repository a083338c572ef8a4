"""Shards of pictures with captions, read one behind the other by every worker of every process.

Each worker has a stream: the tars that are its share, in a random order, over and over again; or,
resampled, tars drawn from all. Samples are shuffled in windows: so many are read, then given in
random order. Where a stream stands is therefore three numbers, however many samples are held back,
and a resumed run reads one tar up to the window to go on exactly where it was.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from train.batch_layout import BatchLayout
from train.picture_config import TarPicturesConfig
from train.picture_sources import CaptionedPicture, StreamPosition
from train.source_files import KEY, BadRow, Row
from train.sources import BadSample, convert_row, tar_pair
from train.tar_stream import expand_tars, read_tar

MAX_BARREN = 10  # tars in a row without a sample: the network or the disk is gone


class PictureStreams:
    """The streams of one process, one for each worker."""

    def __init__(self, config: TarPicturesConfig, *, layout: BatchLayout, seed: int) -> None:
        tars = expand_tars(config.urls)
        num_streams, total = layout.num_streams, layout.world_size * layout.num_streams
        if not config.resampled and len(tars) < total:
            raise ValueError(
                f"each worker reads tars of its own, but data.source.urls names {len(tars)}, "
                f"expected at least {total} for {layout.world_size} processes x {num_streams} "
                "workers; set num_workers lower, or resampled: true to let each draw from all tars"
            )
        self.config = config
        self.layout = layout
        self._turns = [
            TarTurns(tars, config, number=layout.rank * num_streams + i, total=total, seed=seed)
            for i in range(num_streams)
        ]
        self.start(self.beginning)

    @property
    def beginning(self) -> list[StreamPosition]:
        """Where the streams stand before the first step."""
        return [StreamPosition()] * self.layout.num_streams

    def start(self, positions: Sequence[StreamPosition]) -> None:
        """Let every stream begin at its position."""
        self._streams = [
            PictureStream(turns, window_size=self.config.shuffle, position=position)
            for turns, position in zip(self._turns, positions, strict=True)
        ]

    def candidates(self, step: int, number: int) -> Iterator[CaptionedPicture | BadSample]:
        """The next samples of the step's stream."""
        stream = self._streams[self.layout.stream(step)]
        while True:
            yield convert_row(next(stream), str(number), self._captioned)

    def position(self, step: int) -> StreamPosition:
        return self._streams[self.layout.stream(step)].position

    def _captioned(self, name: str, row: Row) -> CaptionedPicture:
        picture, captions = tar_pair(row, self.config.text)
        return CaptionedPicture(name, picture, captions)


class PictureStream:
    """The samples of one stream, without end."""

    def __init__(self, turns: "TarTurns", *, window_size: int, position: StreamPosition) -> None:
        self.turns = turns
        self.window_size = window_size
        self.position = position
        self._rows: Iterator[tuple[int, int, Row | BadRow | None]] | None = None
        self._barren: list[str] = []  # tars without a sample, one behind the other
        self._window: list[Row | BadRow] = []
        self._next = (position.turn, position.offset)  # where the next window begins

    def __next__(self) -> Row | BadRow:
        while not self._window:  # a resumed stream may stand at the end of a window
            if len(self._barren) >= MAX_BARREN:
                raise OSError(
                    f"{MAX_BARREN} tars in a row gave no sample, the last is {self._barren[-1]}; "
                    "check that tars can be reached"
                )
            self._fill()
        turn, offset, used = self.position
        self.position = StreamPosition(turn, offset, used + 1)
        return self._window.pop()

    def _fill(self) -> None:
        """Read the next window, or as much of it as is left of a cycle."""
        used = 0
        if self._rows is None:  # files are opened in the worker that reads them
            self._rows, used = self._read(*self._next), self.position.used
        self.position = StreamPosition(*self._next, used)
        window = []
        for turn, offset, row in islice(self._rows, max(1, self.window_size)):
            self._next = (turn, offset)
            if row is None:
                break
            window.append(row)
        random.Random(f"{self.turns.name}:{self.position[:2]}").shuffle(window)
        self._window = window[: len(window) - used]

    def _read(self, turn: int, offset: int) -> Iterator[tuple[int, int, Row | BadRow | None]]:
        """Each row with the turn and the offset behind it; None where a window must end."""
        while True:
            url = self.turns[turn]
            self._barren.append(url)
            for number, row in enumerate(read_tar(url)):
                if not isinstance(row, BadRow):
                    self._barren.clear()
                    row = {**row, KEY: f"{row[KEY]} in {url}"}
                if number >= offset:
                    yield turn, number + 1, row
            turn, offset = turn + 1, 0
            if self.turns.begins_cycle(turn) or len(self._barren) >= MAX_BARREN:
                yield turn, offset, None


class TarTurns:
    """Which tar a stream reads at each turn."""

    def __init__(
        self,
        tars: Sequence[str],
        config: TarPicturesConfig,
        *,
        number: int,
        total: int,
        seed: int,
    ) -> None:
        """Of stream `number` among `total`."""
        self.name = f"{seed}:{number}"  # seeds all its chance
        self.is_resampled = config.resampled
        self.is_shuffled = config.shuffle > 0
        self.tars = tars if config.resampled else self._shuffled(tars, str(seed))[number::total]

    def __getitem__(self, turn: int) -> str:
        if self.is_resampled:
            return random.Random(f"{self.name}:{turn}").choice(self.tars)
        cycle, place = divmod(turn, len(self.tars))
        return self._shuffled(self.tars, f"{self.name}:{cycle}")[place]

    def begins_cycle(self, turn: int) -> bool:
        """Whether every tar was read as often as any other."""
        return not self.is_resampled and turn % len(self.tars) == 0

    def _shuffled(self, tars: Sequence[str], seed: str) -> Sequence[str]:
        if not self.is_shuffled:
            return tars
        return random.Random(seed).sample(tars, len(tars))
