"""What a row is, how it is stored and read, and the environment it was made in; torch-free."""
