"""What the migrations of a plan did to one database, done to others in the same state without building any model."""

from smooth_migrations.replay.aside import is_lost
from smooth_migrations.replay.recording import Recorder
from smooth_migrations.replay.replaying import Differs, replay
from smooth_migrations.replay.script import Part, Script
from smooth_migrations.replay.shelf import Shelf

__all__ = ["Differs", "Part", "Recorder", "Script", "Shelf", "is_lost", "replay"]
