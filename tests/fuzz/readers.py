"""All readers that are fuzzed."""

from __future__ import annotations

from tests.fuzz import info_pickle

READERS = {reader.READER.name: reader.READER for reader in (info_pickle,)}
