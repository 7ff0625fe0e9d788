"""The documents of a folder in memory, kept up to date with the journal; reads without a lock."""

from pathlib import Path

from support.errors import DatabaseError
from support.storage.captions import CaptionTable
from support.storage.documents import Header
from support.storage.journal import Journal, JournalHeader, Position, Updates
from support.storage.vectors import VectorTable

Table = CaptionTable | VectorTable


class Snapshot:
    """The captions, the vector tables that were opened, and how much of the journal they hold."""

    def __init__(self, folder: Path, captions: CaptionTable, journal: Journal):
        self.captions = captions
        self.tables: dict[str, Table] = {captions.path.name: captions}
        self._folder = folder
        self._journal = journal
        self._position: Position | None = None  # None: everything must be read again

    def refresh(self) -> Position:
        """Applies what has been written since; the journal's position reached."""
        # Whatever stops this before its end, the next look reads everything again.
        position, self._position = self._position, None
        news = self._journal.read_after(position) if position else None
        updates, position = news or self._load()
        self._journal.apply(updates, self.tables)
        self._position = position
        return position

    def apply(self, updates: Updates, position: Position) -> None:
        """Applies an update that this process has written, up to `position`."""
        self.forget()
        self._journal.apply([updates], self.tables)
        self._position = position

    def forget(self) -> None:
        """Lets the next refresh read everything again."""
        self._position = None

    def resume(self, position: Position) -> None:
        """Says that the tables hold all of a journal that was just started, up to `position`."""
        self._position = position

    def vectors(self, name: str, header: Header) -> VectorTable:
        """The vector table in the file `name`, opened once. DatabaseError if it does not fit."""
        table = self.tables.get(name)
        if table is None:
            table = VectorTable(self._folder / name, header)
            self._load_also(name, table)
            self.tables[name] = table
        assert isinstance(table, VectorTable)
        table.check_fits(header)
        return table

    def mismatch(self, header: JournalHeader) -> str | None:
        """What is wrong when captions.json is missing, or does not belong to the journal."""
        path, journal = self.captions.path, self._journal.path.name
        if self.captions.compaction in (header.compaction, header.next_compaction):
            return None
        if not path.exists():
            return f"{path} is missing; {journal} holds only what came after it."
        return f"{path} and {journal} do not belong together: updates between them may be missing."

    def _load(self) -> tuple[list[Updates], Position]:
        """Loads the documents, and reads the journal, as they were at one moment."""
        while True:
            header = self._journal.header()
            for table in self.tables.values():
                table.load()
            updates, position = self._journal.read()
            if position.header == header:
                break  # else a compaction came in between
        if mismatch := self.mismatch(header):
            raise DatabaseError(
                f"{mismatch} Restore two files that belong together, or run with --rebuild to go "
                "on with what they hold."
            )
        return updates, position

    def _load_also(self, name: str, table: VectorTable) -> None:
        """Loads one more document, up to what the others hold or further.

        Updates that come after their position are applied to it twice, which changes nothing.
        """
        while True:
            others = self.refresh()
            table.load()
            updates, position = self._journal.read()
            if position.header == others.header:
                break  # else a compaction came in between
        self._journal.apply(updates, {name: table})
