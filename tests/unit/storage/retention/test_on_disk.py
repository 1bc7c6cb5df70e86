"""A copy is removed only once the other copy would survive a power failure."""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable

from alphapulse.config import Storage
from alphapulse.storage.home import Home
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.retention.pruning import Pruning
from tests.unit.storage.retention.past import OWNED, made

ROOM, LITTLE = 10**12, 10**9  # free bytes of the disk
KEEP_8 = Storage(max_decisions=8, audit_share=0.0)


def files_of(lake: Path) -> set[Path]:
    """Return every data file and commit the tables of decisions and rows consist of now."""
    found: set[Path] = set()
    for table in (*OWNED, "rows"):
        if (lake / table).exists():
            found |= set(map(Path, DeltaTable(lake / table).file_uris()))
            found |= set((lake / table / "_delta_log").glob("*.json"))
    return found


class Disk:
    """Keeps what is on the disk for certain, and what is not at each step of a round.

    Attributes:
        lacking: by step, the files of the lake and of the archive that are not, when it was done.
        num: by step, the decisions in the journal by then.
    """

    def __init__(self, home: Path, *, settings: Storage, free: int) -> None:
        self._journal = JournalReader(made(home).journal_path)
        self._home = home
        self._synced: set[Path] = set()
        self.lacking: dict[str, tuple[set[Path], set[Path]]] = {}
        self.num: dict[str, int] = {}
        lake = Lake(str(home / "lake"))
        Pruning(
            Home(home),
            lake=lake,
            settings=settings,
            disk=lambda _: (free, ROOM),
            step=self._step,
            sync=self._synced.add,
        ).prune()
        self._journal.close()

    def _step(self, name: str) -> None:
        lake, archive = files_of(self._home / "lake"), files_of(self._home / "archive")
        self.lacking.setdefault(name, (lake - self._synced, archive - self._synced))
        ((num,),) = self._journal.fetch("SELECT count(*) FROM decisions", ())
        self.num.setdefault(name, num)


def test_the_archive_is_on_the_disk_before_anything_is_removed(tmp_path: Path) -> None:
    disk = Disk(tmp_path, settings=KEEP_8, free=ROOM)

    assert disk.lacking["verified"][1] == files_of(tmp_path / "archive") != set()
    assert disk.lacking["removing"][1] == set()
    assert (disk.num["removing"], disk.num["removed rows"]) == (24, 8)


def test_the_lake_is_on_the_disk_before_a_journal_gives_up_its_decisions(tmp_path: Path) -> None:
    disk = Disk(tmp_path, settings=KEEP_8, free=ROOM)

    assert disk.lacking["removed examples"][0] != set()
    assert disk.num["removed examples"] == 24
    assert disk.lacking["removed from journals"][0] == set()
    assert disk.num["removed from journals"] == 8
    assert disk.lacking["removed rows"][0] == set()


def test_a_low_disk_trims_a_journal_of_what_the_lake_has_on_the_disk(tmp_path: Path) -> None:
    settings = Storage(audit_share=0.0, disk_free_pct=0.0, disk_free_gb=2.0)

    disk = Disk(tmp_path, settings=settings, free=LITTLE)

    assert disk.lacking["begun"][0] == disk.lacking["removing"][0] != set()
    assert disk.num["removing"] == 24
    assert disk.lacking["removed from journals"][0] == set()
    assert disk.num["removed from journals"] == 8
