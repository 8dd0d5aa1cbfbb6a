"""Result files set against each other: what matches, what differs, and whether that is real."""
