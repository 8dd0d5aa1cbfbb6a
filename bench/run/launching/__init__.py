"""The processes of a trial, and what is seen of them from outside."""
