import pytest

from smooth_orchestrator.journal import Journal
from smooth_orchestrator.testing import MemoryJournal
from tests.support.journal_contract import JournalContract


class TestMemoryJournal(JournalContract):
    """The contract on the fake."""

    @pytest.fixture
    def journal(self) -> Journal:
        """Give an empty journal."""
        return MemoryJournal()

    @pytest.fixture
    def other(self, journal: MemoryJournal) -> Journal:
        """Give another one with the same records."""
        return MemoryJournal(shared=journal)
