"""A deploy as a pure state machine, struck at any of its steps, which go on in any order."""
