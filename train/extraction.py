"""One extraction of codes: its settings, its units of work, and the folder that they fill.

The work is cut into units of `rows_per_shard` consecutive samples of one source, the same whatever
the number of processes. A unit is finished when its shard and then its record are in place, so a
run may be killed at any moment: started again, it does what has no record yet.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from mllm.share import Share
from train.code_shards import (
    BAD_SAMPLES_FILE,
    SHARDS_FOLDER,
    CodeOrigin,
    CodeRow,
    Shard,
    write_manifest,
    write_shard,
)
from train.config import RunConfig
from train.picture_encoder import EncodedSample, PictureEncoder
from train.source_config import AnySourceConfig, SourceConfig
from train.sources import BadSample, Source, open_source
from train.stop_request import StopRequest
from unitok.files import atomic_write, read_json
from unitok.image import RECIPES
from unitok.model import UniTok

STATE_FILE = "extraction.json"  # what a run may not change when it is started again
RECORDS_FOLDER = "records"
INDEX_FOLDER = "index"
SECONDS_BETWEEN_LINES = 30  # at least, within a shard
TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{32}\.\w+")  # of unitok.files.atomic_write

logger = logging.getLogger(__name__)


class ExtractConfig(RunConfig):
    """One extraction."""

    output: Path
    tokenizer: str  # nano, a folder or a hub name
    recipe: str  # how pictures are fitted; a source may name its own
    sources: tuple[AnySourceConfig, ...] = Field(min_length=1)
    batch_size: int = Field(default=64, gt=0)
    rows_per_shard: int = Field(default=10_000, gt=0)  # samples that one unit reads
    limit: int | None = Field(default=None, gt=0)  # samples of each source, for a first look
    device: str = "auto"
    dtype: str = "float32"
    workers: int = Field(default=4, gt=0)  # threads that read pictures

    @model_validator(mode="after")
    def _check_sources(self) -> "ExtractConfig":
        names = [source.name for source in self.sources]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two sources are named {repeated[0]!r}; names must differ")
        for recipe in map(self.recipe_of, self.sources):
            if recipe not in RECIPES:
                choices = ", ".join(RECIPES)
                raise ValueError(f"no recipe is called {recipe!r}; choose one of {choices}")
        return self

    def recipe_of(self, source: SourceConfig) -> str:
        """A source's own recipe, or the run's."""
        return getattr(source, "recipe", None) or self.recipe


@dataclass(frozen=True)
class Unit:
    """The samples `start` to `stop - 1` of one source, which become one shard."""

    source: Source
    name: str
    start: int
    stop: int

    @property
    def file(self) -> str:
        return f"{SHARDS_FOLDER}/{self.name}.parquet"

    def __len__(self) -> int:
        return self.stop - self.start


class Pace:
    """How fast samples are done, to be said now and then: a shard can take an hour."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self.num_done = 0
        self.num_pictures = 0
        self.started = self.last_said = time.monotonic()

    def add(self, num_pictures: int) -> None:
        """One more sample is done."""
        self.num_done += 1
        self.num_pictures += num_pictures

    def is_due(self) -> bool:
        """Whether nothing was said for `SECONDS_BETWEEN_LINES`."""
        return time.monotonic() - self.last_said >= SECONDS_BETWEEN_LINES

    def describe(self) -> str:
        """Images per second and the time left."""
        self.last_said = time.monotonic()
        seconds = self.last_said - self.started
        num_left = self.num_samples - self.num_done
        left = timedelta(seconds=round(seconds / self.num_done * num_left))
        return (
            f"{self.num_done} of {self.num_samples} samples, "
            f"{self.num_pictures / seconds:.0f} images/s, {left} left"
        )


class Extraction:
    """One output folder and the units that fill it."""

    def __init__(self, config: ExtractConfig, tokenizer: UniTok, *, share: Share) -> None:
        """Open every source; refuses a folder that was begun with other settings."""
        self.config = config
        self.share = share
        self.folder = config.output
        self.tokenizer = tokenizer
        self.origin = CodeOrigin(
            tokenizer.fingerprint, tokenizer.config.num_codebooks, tokenizer.config.codebook_size
        )
        for name in (SHARDS_FOLDER, RECORDS_FOLDER, INDEX_FOLDER):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.sources = [self._open(source) for source in config.sources]
        self._check_state()
        self.encoders = {
            source: PictureEncoder(
                tokenizer, recipe=config.recipe_of(source.config), batch_size=config.batch_size
            )
            for source in self.sources
        }
        self.units = [unit for source in self.sources for unit in self._cut(source)]

    def run(self, *, report: Callable[[int, int], None]) -> bool:
        """Do this process's units; returns False when a signal stopped it between two of them.

        `report` is told of samples done and to do.
        """
        own = self.units[self.share.index :: self.share.count]
        units = [unit for unit in own if self._record(unit) is None]
        logger.info("%d of %d shards are there already", len(own) - len(units), len(own))
        pace = Pace(sum(map(len, units)))
        with StopRequest() as stop:
            for unit in units:
                if stop.received:
                    return False
                for num_pictures in self._extract(unit):
                    pace.add(num_pictures)
                    report(pace.num_done, pace.num_samples)
                    if pace.is_due():
                        logger.info("%s: %s", unit.file, pace.describe())
                logger.info("%s is done: %s", unit.file, pace.describe())
        return True

    def finish(self) -> bool:
        """Write manifest and bad samples if all units of all processes are done."""
        found = [self._record(unit) for unit in self.units]
        records = [record for record in found if record is not None]
        if len(records) < len(self.units):
            return False
        bad_samples, shards = [], []
        for unit, record in zip(self.units, records, strict=True):
            source = unit.source.config.name
            if record["sha256"] is not None:
                shards.append(Shard(unit.file, source, record["rows_per_task"], record["sha256"]))
            bad_samples += [{**bad, "source": source} for bad in record["bad_samples"]]
        with atomic_write(self.folder / BAD_SAMPLES_FILE) as temporary:
            temporary.write_text("".join(f"{json.dumps(each)}\n" for each in bad_samples))
        write_manifest(self.folder, self.origin, shards, num_bad_samples=len(bad_samples))
        self._remove_leftovers()
        return True

    def num_missing(self) -> int:
        return sum(self._record(unit) is None for unit in self.units)

    def _open(self, source: Any) -> Source:
        logger.info("opening %s: %s", source.name, source.path)
        return open_source(
            source,
            index_folder=self.folder / INDEX_FOLDER / source.name,
            num_codebooks=self.origin.num_codebooks,
            codebook_size=self.origin.codebook_size,
            first=self.share.index / self.share.count,
            limit=self.config.limit,
        )

    def _cut(self, source: Source) -> Iterator[Unit]:
        length = self._num_samples(source)
        for number, start in enumerate(range(0, length, self.config.rows_per_shard)):
            stop = min(start + self.config.rows_per_shard, length)
            yield Unit(source, f"{source.config.name}-{number:06d}", start, stop)

    def _num_samples(self, source: Source) -> int:
        return min(len(source), self.config.limit or len(source))

    def _check_state(self) -> None:
        """What decides rows and codes must be as it was when the folder was begun."""
        kept = self.config.model_dump(
            mode="json", include={"recipe", "dtype", "rows_per_shard", "sources"}
        )
        state = {
            "tokenizer_fingerprint": self.origin.tokenizer_fingerprint,
            **kept,
            "num_samples": {s.config.name: self._num_samples(s) for s in self.sources},
        }
        path = self.folder / STATE_FILE
        if not path.is_file():
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(state, indent=1) + "\n")
        begun = read_json(path)
        for name, value in state.items():
            if begun.get(name) != value:
                was = begun.get(name)
                difference = f"other {name}" if name == "sources" else f"{name} {was}, now {value}"
                raise ValueError(
                    f"{self.folder} was begun with {difference}; name another output folder, or go "
                    f"on with what {path} says"
                )

    def _record(self, unit: Unit) -> dict[str, Any] | None:
        """The record of a finished unit, whose shard is there if it has rows."""
        path, shard = self._record_path(unit), self.folder / unit.file
        if not path.is_file():
            return None
        record = read_json(path)
        size = shard.stat().st_size if shard.is_file() else 0
        return record if size == record["size"] else None

    def _record_path(self, unit: Unit) -> Path:
        return self.folder / RECORDS_FOLDER / f"{unit.name}.json"

    def _extract(self, unit: Unit) -> Iterator[int]:
        """Do one unit; yields the number of pictures of each sample once that is encoded."""
        rows: list[CodeRow] = []
        bad_samples: list[BadSample] = []
        source = unit.source
        samples = source.read(unit.start, unit.stop)
        for sample in self.encoders[source].encode(samples, workers=self.config.workers):
            if isinstance(sample, BadSample):
                bad_samples.append(sample)
                yield 0
            else:
                rows += _rows(sample, source.config.name)
                yield len(sample.pictures)
        self._write(unit, rows, bad_samples)

    def _write(self, unit: Unit, rows: list[CodeRow], bad_samples: list[BadSample]) -> None:
        """Shard and record; without rows no shard, because libraries stumble over empty ones."""
        shard = self.folder / unit.file
        digest = write_shard(shard, rows) if rows else None
        tasks = [row.task for row in rows]
        record = {
            "rows_per_task": {task: tasks.count(task) for task in sorted(set(tasks))},
            "size": shard.stat().st_size if rows else 0,
            "sha256": digest,
            "bad_samples": [{"id": bad.id, "reason": bad.reason} for bad in bad_samples],
        }
        with atomic_write(self._record_path(unit)) as temporary:
            temporary.write_text(json.dumps(record) + "\n")
        if bad_samples:
            logger.info("%s: %d bad samples", unit.file, len(bad_samples))

    def _remove_leftovers(self) -> None:
        """Files that killed processes had not finished; all that belongs here is in place."""
        for name in (SHARDS_FOLDER, RECORDS_FOLDER):
            for path in (self.folder / name).iterdir():
                if TEMPORARY_NAME.fullmatch(path.name):
                    path.unlink(missing_ok=True)


def _rows(encoded: EncodedSample, source: str) -> list[CodeRow]:
    """One row for each task of a sample."""
    sample = encoded.sample
    return [
        CodeRow(sample.id, task, sample.texts, sample.messages, encoded.pictures, source)
        for task in sample.tasks
    ]
