"""How batches grow and shrink."""

import subprocess
import sys

from smooth_migrations.backfill.pace import Pace


def test_batches_come_to_take_as_long_as_they_are_to() -> None:
    pace = Pace(1000, 50_000, 0.1)
    for _batch in range(40):
        # So many rows a second.
        pace.learn(pace.size / 100_000, is_full=True)
    assert pace.size == 10_000


def test_no_batch_grows_or_shrinks_at_once_or_beyond_its_bounds() -> None:
    pace = Pace(1000, 2500, 0.1)
    sizes = []
    for duration_s in (0.0, 0.0, 9.0, 9.0):
        pace.learn(duration_s, is_full=True)
        sizes.append(pace.size)
    assert sizes == [2000, 2500, 1250, 625]
    for _batch in range(20):
        pace.shrink()
    assert pace.size == 10


def test_what_was_less_than_a_batch_lets_none_grow() -> None:
    pace = Pace(1000, 50_000, 0.1)
    pace.learn(0.001, is_full=False)
    assert pace.size == 1000


def test_the_package_itself_needs_no_django() -> None:
    program = "import sys, smooth_migrations; print([name for name in sys.modules if name.startswith('django')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
