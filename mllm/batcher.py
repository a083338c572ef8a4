"""Continuous batching: programs that say what they need next, and one decoder call for all.

A program is a generator. It yields a wish and is resumed with what came of it: positions read, a
text token chosen, a row of a picture's grid drawn. `Batcher.step` grants what can be granted and
then calls the decoder once, with the next positions of all programs; so programs of any length
run side by side, and one may come or go between any two steps.

Shapes: T positions, D decoder width, V vocabulary size, n visual tokens drawn, K codebooks.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mllm.model import UniTokMLLM
from mllm.prefix_store import Keys, PrefixStore
from mllm.running_pictures import Picture, Projection, RunningPictures
from mllm.running_rows import NewPositions, Row, RunningRows

MAX_POSITIONS = 512  # that a row reads in a step: a long prompt must not hold up the others


@dataclass(frozen=True)
class Read:
    """Let rows read embeddings (T, D); resumed with None. A row that is new is opened."""

    news: Sequence[NewPositions]


@dataclass(frozen=True)
class ChooseToken:
    """Choose the text token behind a row; resumed with its id."""

    row: Row
    choose: Callable[[Tensor], Tensor]  # logits (1, V) -> (1,)


@dataclass(frozen=True)
class DrawRow:
    """Draw the next row of the grid of a picture; resumed with a `DrawnRow`.

    The decoder has read all but the last visual token. A complete picture is closed, together with
    its unconditional row.
    """

    picture: Picture


@dataclass(frozen=True)
class DrawnRow:
    """What came of a `DrawRow`."""

    codes_nK: Tensor  # of the picture so far
    last_1D: Tensor  # the last visual token for the decoder, which has read only those before


@dataclass(frozen=True)
class Recall:
    """Open a row with what is known of `keys`; resumed at once with the number of positions."""

    row: Row
    keys: Keys


@dataclass(frozen=True)
class Remember:
    """Keep what a row has read under `keys`, one for each position; resumed at once with None."""

    row: Row
    keys: Keys


Wish: TypeAlias = Read | ChooseToken | DrawRow | Recall | Remember
Program: TypeAlias = Generator[Wish, Any, Any]


@dataclass(eq=False)
class Run:
    """A program in work."""

    program: Program
    wish: Wish | None = None  # None: the program has ended
    result: Any = None
    error: Exception | None = None
    unread: list[NewPositions] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  # open ones
    picture: Picture | None = None  # that is open

    @property
    def has_ended(self) -> bool:
        return self.wish is None


class Batcher:
    """Runs programs side by side on one model."""

    def __init__(
        self,
        model: UniTokMLLM,
        *,
        projection: Projection = "cached",
        prefixes: PrefixStore | None = None,
    ) -> None:
        """`prefixes` keeps what programs ask to be remembered; None: nothing is."""
        self.model = model
        self.prefixes = prefixes
        self.rows = RunningRows(model.decoder)
        self.pictures = RunningPictures(model, projection=projection)
        self.running: list[Run] = []

    @torch.no_grad()
    def start(self, program: Program) -> Run:
        """Take up a program; its run says in time what came of it."""
        run = Run(program)
        self.running.append(run)
        self._resume(run, None)
        return run

    def stop(self, run: Run) -> None:
        """Break off a program and free its places."""
        run.program.close()
        self._end(run)

    @torch.no_grad()
    def step(self) -> None:
        """Take every program further, with at most one call of the decoder."""
        self._choose()
        self._draw()
        self._read()

    def run_all(
        self,
        programs: Iterable[Program],
        *,
        max_active: int,
        after_step: Callable[[], None] = lambda: None,
    ) -> list[Any]:
        """Results of programs, in order, of which `max_active` run side by side.

        The first error is raised, and whatever `after_step` raises; then all others are stopped.
        """
        waiting, runs = iter(programs), list[Run]()
        try:
            while True:
                runs += map(self.start, islice(waiting, max_active - len(self.running)))
                for run in runs:
                    if run.error is not None:
                        raise run.error
                if not self.running:
                    return [run.result for run in runs]
                self.step()
                after_step()
        finally:
            for run in self.running.copy():
                self.stop(run)

    # -- one step --------------------------------------------------------------------------------

    def _choose(self) -> None:
        """Text tokens; they reach the host together."""
        chosen = [(run, run.wish) for run in self.running if isinstance(run.wish, ChooseToken)]
        if not chosen:
            return
        hidden_ND = self.rows.hidden([wish.row for _, wish in chosen])
        logits_NV = self.model.lm_head(hidden_ND)
        tokens = [
            wish.choose(logits_1V)
            for (_, wish), logits_1V in zip(chosen, logits_NV.split(1), strict=True)
        ]
        for (run, _), token in zip(chosen, torch.cat(tokens).tolist(), strict=True):
            self._resume(run, token)

    def _draw(self) -> None:
        """A visual token of every picture; a program goes on when a row of the grid is full."""
        if not self.pictures.pictures:
            return
        self.pictures.draw(self.rows)
        rows, columns = self.model.config.grid
        for run in self.running.copy():
            picture = run.picture
            if picture is None or picture.num_drawn % columns:
                continue
            drawn = DrawnRow(self.pictures.codes(picture), self.pictures.embeds(picture))
            if picture.num_drawn == rows * columns:
                self._finish_picture(run, picture)
            self._resume(run, drawn)

    def _read(self) -> None:
        """The one call of the decoder: what programs want read, and tokens of growing pictures."""
        news = [new for run in self.running for new in self._news_of(run)]
        if not news:
            return
        self.rows.read(news)
        for run in self.running.copy():
            if not isinstance(run.wish, Read):
                continue
            run.unread = [
                (row, embeds_TD[MAX_POSITIONS:])
                for row, embeds_TD in run.unread
                if len(embeds_TD) > MAX_POSITIONS
            ]
            if not run.unread:
                self._resume(run, None)

    def _news_of(self, run: Run) -> list[NewPositions]:
        if run.picture is not None and run.picture.num_drawn:
            embeds_1D = self.pictures.embeds(run.picture)
            return [(row, embeds_1D) for row in run.picture.rows]
        return [(row, embeds_TD[:MAX_POSITIONS]) for row, embeds_TD in run.unread]

    # -- one program -----------------------------------------------------------------------------

    def _resume(self, run: Run, value: Any) -> None:
        """Give a program what it waited for, and take its next wish or its end."""
        try:
            wish = run.program.send(value)
            while isinstance(wish, Recall | Remember):
                wish = run.program.send(self._use_memory(run, wish))
            self._accept(run, wish)
        except StopIteration as end:
            run.result = end.value
            self._end(run)
        except Exception as error:  # it fails alone: the others go on
            run.error = error
            self._end(run)

    def _use_memory(self, run: Run, wish: Recall | Remember) -> int | None:
        if isinstance(wish, Recall):
            known_N2GTE = None if self.prefixes is None else self.prefixes.find(wish.keys)
            self.rows.open(wish.row, known_N2GTE)
            run.rows.append(wish.row)
            return wish.row.length
        if self.prefixes is not None:
            assert len(wish.keys) == wish.row.length
            self.prefixes.keep(wish.keys, self.rows.keep(wish.row))
        return None

    def _accept(self, run: Run, wish: Wish) -> None:
        run.wish = wish
        if isinstance(wish, Read):
            run.unread = list(wish.news)
            for row, _ in wish.news:
                if row not in run.rows:
                    self.rows.open(row)
                    run.rows.append(row)
        elif isinstance(wish, DrawRow) and wish.picture is not run.picture:
            self.pictures.open(wish.picture)
            run.picture = wish.picture

    def _finish_picture(self, run: Run, picture: Picture) -> None:
        self.pictures.close(picture)
        run.picture = None
        for row in picture.rows[1:]:
            self.rows.close(row)
            run.rows.remove(row)

    def _end(self, run: Run) -> None:
        run.wish = None
        self.running.remove(run)
        if run.picture is not None:
            self.pictures.close(run.picture)
        for row in run.rows:
            self.rows.close(row)
        run.rows, run.picture, run.unread = [], None, []
