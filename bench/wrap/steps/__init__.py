"""What ends a step of a program, what happened in it, and how most of its steps are."""
