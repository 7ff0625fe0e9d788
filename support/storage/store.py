"""A folder of documents with a journal: an update is one synced line, whatever their size.

An update is appended to the journal before it is reported as done. Compaction replaces the
documents whole (temporary file, fsync, rename) and then starts an empty journal. Applying a line
twice changes nothing, so a crash between those steps loses and doubles nothing. Writers hold a lock
for the time of an update; readers need none.
"""

import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from support.errors import DatabaseError
from support.log import log
from support.storage.captions import CaptionTable
from support.storage.damage import DamagedFile
from support.storage.documents import Header, Records
from support.storage.errors import unwritable
from support.storage.files import make_folder, sync_folder
from support.storage.journal import JOURNAL_NAME, Journal, JournalHeader, Position, Updates
from support.storage.lock import WriterLock
from support.storage.snapshot import Snapshot
from support.storage.vectors import VectorTable

# The journal is compacted when it is larger than this, and than this share of the documents: so
# the work for an update is the same however many there are.
JOURNAL_BYTES = 8 * 2**20
JOURNAL_SHARE = 1 / 8
CURRENT_BYTES = 64 * 2**20  # documents up to this size are compacted whenever a program ends


class Store:
    """The documents and the journal of a folder, read and written.

    `rebuild` keeps what can be read of damaged files. Raises DatabaseError, naming the file and the
    way out, for files that are damaged, of a newer format, or locked.
    """

    def __init__(self, folder: Path, captions: CaptionTable, rebuild: bool = False):
        self.folder = folder
        self.captions = captions
        self.lock = WriterLock(folder)
        self.journal = Journal(folder / JOURNAL_NAME)
        self.snapshot = Snapshot(folder, captions, self.journal)
        self._wrote = False
        self._synced: JournalHeader | None = None
        with unwritable(folder):
            make_folder(folder)
        if rebuild:
            self._salvage()
        if not self.journal.path.exists():
            self._start()
        self.snapshot.refresh()

    # --- Updates ----------------------------------------------------------------------------------
    def update(self, changes: Callable[[], Updates]) -> None:
        """Appends what `changes` computes from the newest state to the journal, then applies it."""
        with self.lock.held():
            position = self._catch_up()
            updates = {name: records for name, records in changes().items() if records}
            if updates:
                self.snapshot.forget()
                position = self.journal.append(updates, position)
                self.snapshot.apply(updates, position)
                self._wrote = True
            if self._is_long():
                self._compact()

    def _is_long(self) -> bool:
        """Whether the journal has grown so long that it is time to compact it."""
        return self.journal.size() > max(JOURNAL_BYTES, JOURNAL_SHARE * self._document_bytes())

    def _document_bytes(self) -> int:
        return sum(table.bytes_on_disk() for table in self.snapshot.tables.values())

    def _catch_up(self) -> Position:
        """Reads the newest state and cuts off half a line at the journal's end. Lock held."""
        position = self.snapshot.refresh()
        if position.header != self._synced:
            self._sync_folders()
            self._synced = position.header
        if self.journal.cut_half_line(position):
            log.warning(
                "%s ended in half an update, of a program that was stopped: left out.",
                self.journal.path,
            )
        return position

    def _sync_folders(self) -> None:
        """Makes durable what another process renamed here, and was killed before it could sync."""
        with unwritable(self.folder):
            for folder in (self.folder, *(path for path in self.folder.iterdir() if path.is_dir())):
                sync_folder(folder)

    # --- Compaction -------------------------------------------------------------------------------
    def compact_if_free(self) -> None:
        """Compacts the journal if this process has written, and no other writes at this moment.

        Large documents only when the journal is long: whoever reads them reads both.
        """
        if not self._wrote or not self.journal.path.exists():
            return
        if self._document_bytes() <= CURRENT_BYTES or self._is_long():
            with self.lock.held_if_free() as held:
                if held:  # else the other process will compact it
                    self._catch_up()
                    self._compact()

    def _compact(self) -> None:
        """Writes the captions and every document with updates, then empties the journal.

        With the lock held.
        """
        self.lock.announce("compacting the journal")
        updates, position = self.journal.read()
        header = JournalHeader.new(position.header.next_compaction)
        self.snapshot.forget()
        self.captions.mark(header.compaction)
        self.captions.save()
        left: list[Updates] = []
        updated = set().union(*updates) - {self.captions.path.name}
        for name in sorted(updated):
            theirs = [update[name] for update in updates if name in update]
            if name in self.snapshot.tables:
                self.snapshot.tables[name].save()
            elif not _compact_unopened(self.folder / name, theirs):
                left += [{name: records} for records in theirs]
        self.snapshot.resume(self.journal.start(header, left))

    # --- Removing ---------------------------------------------------------------------------------
    def remove(
        self, changes: Callable[[], tuple[Records, Collection[str]]], vector_files: Iterable[Path]
    ) -> None:
        """Changes caption records and takes others out, with the vectors of the same keys.

        `changes` gives, for the newest state, records to replace and keys to take out: content
        hashes and captions. Nothing of them stays in documents or journal. Raises DatabaseError,
        and changes nothing, where one of `vector_files` cannot be read. A crash in between may
        leave some of it; doing it again ends it.
        """
        with self.lock.held():
            self._catch_up()
            records, keys = changes()
            self.lock.announce("removing what is to be forgotten")
            updates, position = self.journal.read()
            tables = {
                path.relative_to(self.folder).as_posix(): VectorTable.read(path)
                for path in vector_files
            }
            self.journal.apply(updates, tables)
            header = JournalHeader.new(position.header.next_compaction)
            self.snapshot.forget()
            self.captions.update(records)
            self.captions.remove(keys)
            self.captions.mark(header.compaction)
            self.captions.save()
            for table in tables.values():
                table.remove(keys)
                table.save()
            self.journal.start(header)
            self.snapshot.refresh()

    # --- Starting and rebuilding ------------------------------------------------------------------
    def _start(self) -> None:
        """Starts a journal, unless another process just has."""
        with self.lock.held():
            if self.journal.path.exists():
                return
            self.captions.load()
            if self.captions.path.exists():
                held = self.captions.path.name
                log.warning("%s; continuing with what %s holds.", self.journal.missing(), held)
            self.journal.start(JournalHeader.new(self.captions.compaction))
            if not self.captions.path.exists():
                self.captions.save()  # it says whose databases these are

    def start_vectors(self, name: str, header: Header, replace: bool = False) -> None:
        """Makes an empty vector file, and drops the journal's updates for it.

        With `replace`, in place of an existing one. The journal is replaced first, because a crash
        must not leave old updates beside the new file, and again afterwards, so that others notice.
        """
        with self.lock.held():
            path = self.folder / name
            if path.exists() and not replace:
                return
            self.lock.announce("making a new file of vectors")
            with suppress(DamagedFile):  # a copy is kept; a file of a newer format is refused
                if path.exists():
                    VectorTable.read(path)
            self._catch_up()
            updates, position = self.journal.read()
            for update in updates:
                update.pop(name, None)
            others = [update for update in updates if update]
            self._restart_journal(position.header, others)
            VectorTable(path, header).save()
            self._restart_journal(position.header, others)
            self.snapshot.tables.pop(name, None)

    def _restart_journal(self, header: JournalHeader, updates: Iterable[Updates]) -> None:
        self.snapshot.forget()
        self.journal.start(JournalHeader.new(header.compaction, header.next_compaction), updates)

    def _salvage(self) -> None:
        """Keeps what can be read of captions and journal, where they are damaged or do not fit."""
        captions = self.captions
        with self.lock.held():
            if not (self.journal.path.exists() or captions.path.exists()):
                return
            self.lock.announce("rebuilding")
            updates, lost = self.journal.salvage()
            lost += captions.salvage()
            if not lost and (mismatch := self.snapshot.mismatch(self.journal.header())):
                lost.append(mismatch)
            kept = [u for u in updates if captions.try_update(u.get(captions.path.name, {}))]
            if len(kept) < len(updates):
                left_out = f"{len(updates) - len(kept)} updates in {self.journal.path}"
                lost.append(f"{left_out} do not fit and are left out.")
            if lost:
                header = JournalHeader.new(uuid.uuid4().hex)
                captions.mark(header.compaction)
                captions.save()
                self.journal.start(header, kept)
        for what in lost:
            log.warning("--rebuild: %s", what)


def _compact_unopened(path: Path, updates: Iterable[Records]) -> bool:
    """Writes the vectors of a model this process does not use, unless their file is gone.

    False if it cannot be read: then they are left to a process that uses them.
    """
    try:
        path.lstat()
        table = VectorTable.read(path)
        for records in updates:
            table.update(records)
    except FileNotFoundError:
        return True
    except (DatabaseError, OSError, ValueError):
        return False
    table.save()
    return True
