"""An ALTER TABLE that takes MariaDB long: it does not look for its client meanwhile, as it would while it waits."""

from tests.support.django_connections import ask
from tests.support.histories import Database
from tests.support.leases import until
from tests.support.small_project import migration

__all__ = ["LONG", "LONG_SQL", "ROWS", "alters", "let_it_end"]

_BYTES = 15_000_000
LONG_SQL = (
    "ALTER TABLE demo_item ADD COLUMN digest varchar(128) "
    f"GENERATED ALWAYS AS (SHA2(CONCAT(name, REPEAT('x', {_BYTES})), 512)) STORED"
)
"""It copies the table, and works for a tenth of a second or more on each row."""

ROWS = "INSERT INTO demo_item (name) SELECT seq FROM seq_1_to_100"
"""How the table comes to have enough of them."""

LONG = migration(
    "migrations.CreateModel('Box', [('id', models.BigAutoField(primary_key=True))])",
    "migrations.AddField('item', 'digest', models.GeneratedField(db_persist=True, "
    f"expression=SHA512(Concat('name', Repeat(Value('x'), {_BYTES}))), "
    "output_field=models.CharField(max_length=128)))",
    after=[("demo", "0001_item")],
    functions="from django.db.models import Value\nfrom django.db.models.functions import SHA512, Concat, Repeat",
)
"""demo.0002_note, whose first operation is to be taken back when the second one does not end."""

_ALTERING = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'ALTER TABLE%SHA%'"
_PATIENCE_S = 90


def alters(database: Database) -> list[int]:
    """Return the sessions in which it is at work, as the server numbers them."""
    return [int(row[0]) for row in ask(database, _ALTERING)]


def let_it_end(database: Database) -> None:
    """Wait until it has ended, however."""
    until(lambda: not alters(database), patience_s=_PATIENCE_S)
