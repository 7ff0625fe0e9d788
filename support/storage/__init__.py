"""Files that survive a crash: atomic replacement, JSON documents, tables, a journal, a lock."""
