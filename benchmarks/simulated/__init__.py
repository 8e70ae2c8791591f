"""A fleet on a simulated clock: the program itself, with servers and machines that only take their time."""
