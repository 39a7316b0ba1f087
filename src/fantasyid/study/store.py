"""The ratings of a study in one SQLite file: a page counts as a whole and once, and what was confirmed stays.

Every call opens the file for itself, so any number of threads and processes may share it.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.study.plan import HIGHEST, QUESTIONS, Page, StudyPlan

_SCHEMA = f"""
CREATE TABLE study (plan TEXT NOT NULL);
CREATE TABLE raters (rater TEXT PRIMARY KEY, begun_at TEXT NOT NULL, pages TEXT NOT NULL);
CREATE TABLE answers (
    rater TEXT NOT NULL REFERENCES raters, item TEXT NOT NULL, answered_at TEXT NOT NULL, PRIMARY KEY (rater, item)
);
CREATE TABLE scores (
    rater TEXT NOT NULL, item TEXT NOT NULL, system TEXT NOT NULL, question TEXT NOT NULL,
    score INTEGER NOT NULL CHECK (score BETWEEN 0 AND {HIGHEST}),
    PRIMARY KEY (rater, item, system, question), FOREIGN KEY (rater, item) REFERENCES answers
);
"""
_PAGES = TypeAdapter(tuple[Page, ...])
_PATIENCE_S = 60.0
"""How long one call waits for the others'."""


@dataclass(frozen=True)
class Rating:
    """One number that one rater gave.

    Attributes:
        rater: r1, r2 and so on, in the order in which they began; the address of their pages cannot be told from it.
        item: What was shown.
        system: What made it.
        question: A key of `QUESTIONS`.
        score: 0 to 10.
        place: Where on the page the video was, from 0 at the left.
        answered_at: When the page was sent, ISO 8601 in UTC.
    """

    rater: str
    item: str
    system: str
    question: str
    score: int
    place: int
    answered_at: str


class RatingStore:
    """The file of a study's ratings.

    Args:
        path: The file, which is there.

    Raises:
        InvalidRequestError: There is no such file, or it holds no ratings.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise InvalidRequestError(f"There is no file {path}; check the path of the ratings.")
        try:
            with self._transaction() as database:
                ((plan,),) = database.execute("SELECT plan FROM study").fetchall()
            self.plan = StudyPlan.model_validate_json(plan)
            """What is rated."""
        except (sqlite3.DatabaseError, ValueError) as error:
            raise InvalidRequestError(
                f"{path} holds no ratings ({short_reason(error)}); give the file of `study serve`."
            ) from error

    @classmethod
    def begin(cls, path: Path, plan: StudyPlan) -> "RatingStore":
        """Open the file of a study, and make it if it is not there.

        Args:
            path: The file.
            plan: What is rated.

        Raises:
            InvalidRequestError: The file holds the ratings of something else, or cannot be made.
        """
        if not path.exists():
            try:
                _create(path, plan)
            except (sqlite3.Error, OSError) as error:
                raise InvalidRequestError(f"{path} cannot be made ({error}); choose another place.") from error
        store = cls(path)
        if store.plan != plan:
            names = [name for name in StudyPlan.model_fields if getattr(plan, name) != getattr(store.plan, name)]
            raise InvalidRequestError(
                f"{path} holds ratings of another study: {', '.join(names)} differ; serve the same videos with the "
                "same options, or name another file."
            )
        return store

    def add_rater(self, rater: str) -> None:
        """Draw the pages of a rater, who begins; one who has begun keeps them.

        Args:
            rater: Nobody else's id.
        """
        with self._transaction() as database:
            seen: dict[str, int] = {}
            for (pages,) in database.execute("SELECT pages FROM raters"):
                for page in _PAGES.validate_json(pages):
                    seen[page.item] = seen.get(page.item, 0) + 1
            pages = _PAGES.dump_json(self.plan.draw_pages(seen)).decode()
            database.execute("INSERT OR IGNORE INTO raters VALUES (?, ?, ?)", (rater, _now(), pages))

    def pages(self, rater: str) -> tuple[Page, ...] | None:
        """A rater's pages in order; None for one who has not begun."""
        with self._transaction() as database:
            row = database.execute("SELECT pages FROM raters WHERE rater = ?", (rater,)).fetchone()
        return None if row is None else _PAGES.validate_json(row[0])

    def answered(self, rater: str) -> frozenset[str]:
        """The items that a rater has rated."""
        with self._transaction() as database:
            return frozenset(item for (item,) in database.execute("SELECT item FROM answers WHERE rater = ?", (rater,)))

    def add_answer(self, rater: str, item: str, scores: Mapping[tuple[str, str], int]) -> bool:
        """Keep a rater's scores of one page; when this returns, they are on the disk.

        Args:
            rater: Who has begun.
            item: Of one of their pages.
            scores: 0 to 10 by system and question, of all systems and questions.

        Returns:
            Whether they count: not if the rater has rated the page before, whose scores stay.
        """
        wanted = {(system, question) for system in self.plan.systems for question in QUESTIONS}
        assert set(scores) == wanted, f"scores of {sorted(scores)}"
        with self._transaction() as database:
            added = database.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", (rater, item, _now()))
            if not added.rowcount:
                return False
            rows = [(rater, item, system, question, score) for (system, question), score in scores.items()]
            database.executemany("INSERT INTO scores VALUES (?, ?, ?, ?, ?)", rows)
        return True

    def ratings(self) -> tuple[Rating, ...]:
        """All ratings, by rater, page, place and question."""
        with self._transaction() as database:
            raters = database.execute("SELECT rater, pages FROM raters ORDER BY begun_at, rater").fetchall()
            answers = {(rater, item): at for rater, item, at in database.execute("SELECT * FROM answers")}
            scores = {tuple(row[:4]): row[4] for row in database.execute("SELECT * FROM scores")}
        return tuple(
            Rating(f"r{number}", page.item, system, question, scores[rater, page.item, system, question], place, at)
            for number, (rater, pages) in enumerate(raters, 1)
            for page in _PAGES.validate_json(pages)
            if (at := answers.get((rater, page.item))) is not None
            for place, system in enumerate(page.systems)
            for question in QUESTIONS
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw", _PATIENCE_S, uri=True, isolation_level=None
        )
        try:
            database.execute("PRAGMA foreign_keys = ON")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        finally:
            database.close()


def _create(path: Path, plan: StudyPlan) -> None:
    """Make the file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    database = sqlite3.connect(partial)
    try:
        database.executescript(_SCHEMA)
        database.execute("INSERT INTO study VALUES (?)", (plan.model_dump_json(),))
        database.commit()
    finally:
        database.close()
    partial.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
